"""A record comes out of a row as it went in, and what is in no row is known to be in none."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from coordinator.store.records import DeviceRecord, SetAside
from coordinator.store.rows import (
    assignment_number,
    audit_hash,
    device_record,
    is_text,
    tier_record,
    tier_row,
    version_files,
    version_record,
    version_row,
)
from coordinator.store.tables import named_files
from mobile_sdk.protocol.messages import ArtifactRef, Sha256

from .filled import TIER, version

OTHER = ArtifactRef(Sha256("cd" * 32), 11, "zlib")


@pytest.mark.parametrize("graph", [None, OTHER])
def test_a_tier_is_what_its_row_says(graph: ArtifactRef | None) -> None:
    tier = dataclasses.replace(TIER, program=OTHER, graph=graph)
    assert tier_record(tier_row(tier)) == tier


@pytest.mark.parametrize("pruned", [False, True])
def test_a_version_is_what_its_row_says_and_names_its_files(pruned: bool) -> None:
    record = dataclasses.replace(version(3), private={"momentum": OTHER}, pruned=pruned)
    assert version_record((*version_row(record), int(pruned))) == record
    assert version_files(record) == {record.weights[0].sha256, OTHER.sha256}


def test_a_device_is_what_its_row_says() -> None:
    row = ("d", "small", 1, 2, 3, '{"a": 1}', "alias", "t", 4.0, 5.0, 6, 7.0, '{"model": "x"}', 8.0, "far", "too far")
    record = device_record(row)
    assert record == DeviceRecord(
        "d",
        tier="small",
        bytes_up=1,
        bytes_down=2,
        updates=3,
        report={"a": 1},
        alias="alias",
        token="t",
        enrolled_at=4.0,
        last_seen=5.0,
        failures=6,
        revoked_at=7.0,
        profile={"model": "x"},
        aside=SetAside(8.0, "far", "too far"),
    )
    assert device_record((*row[:13], None, None, None)).aside is None


@pytest.mark.parametrize(
    ("text", "is_one"), [("phone", True), ("", True), ("é", True), ("a\0b", False), ("\0", False), ("\ud800", False)]
)
def test_a_database_holds_text_without_zeros_and_halves_of_characters(text: str, is_one: bool) -> None:
    assert is_text(text) is is_one


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("a00000007", 7),
        ("a0", 0),
        ("a" + "9" * 40, 2**63 - 1),
        (f"a{2**63 - 2}", 2**63 - 2),
        ("a", None),
        ("a-1", None),
        ("a1x", None),
        ("a٣", None),
    ],
)
def test_an_assignments_number_is_in_its_name(name: str, number: int | None) -> None:
    assert assignment_number(name) == number


def test_a_line_of_the_audit_log_hangs_on_the_line_before_and_on_all_of_its_own_words() -> None:
    line = audit_hash("", 1.0, "anna", "revoked", "phone-1", "{}")
    assert line == "8e6dc4a97cddc3d18b7186172e62f430f56f5a770cce51d2ab6af1bfa9d9c5ad", "older logs are checked by it"
    others = {
        audit_hash(line, 1.0, "anna", "revoked", "phone-1", "{}"),
        audit_hash("", 2.0, "anna", "revoked", "phone-1", "{}"),
        audit_hash("", 1.0, "otto", "revoked", "phone-1", "{}"),
        audit_hash("", 1.0, "anna", "paused", "phone-1", "{}"),
        audit_hash("", 1.0, "anna", "revoked", "phone-2", "{}"),
        audit_hash("", 1.0, "anna", "revoked", "phone-1", "[]"),
    }
    assert len(others - {line}) == 6


def test_the_files_that_rows_name_are_those_of_the_run_its_tiers_and_the_versions_that_have_theirs() -> None:
    refs = [ArtifactRef(Sha256(f"{number:064x}"), number) for number in range(9)]
    hashes = [ref.sha256 for ref in refs]
    tier = dataclasses.replace(TIER, manifest=refs[1], program=refs[2], graph=refs[3])
    bare = dataclasses.replace(TIER, manifest=refs[4], program=refs[2], graph=None)
    first = dataclasses.replace(version(0), weights=(refs[5],), private={"momentum": refs[6]})
    second = dataclasses.replace(version(1), weights=(refs[7], refs[8]))

    def rows(evaluation: str, *pruned: int) -> dict[str, list[tuple[Any, ...]]]:
        versions = [(*version_row(record), record.version in pruned) for record in (first, second)]
        return {"run": [("digits", "{}", evaluation)], "tiers": [tier_row(tier), tier_row(bare)], "versions": versions}

    assert named_files(rows(hashes[0])) == hashes
    assert named_files(rows("", 0)) == [*hashes[1:5], *hashes[7:]]
