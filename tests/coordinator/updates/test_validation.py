"""What an update has to be to be taken, and what of a device's report is kept."""

from __future__ import annotations

import dataclasses
import hashlib
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.errors import UpdateRefused
from coordinator.merge.step_sizes import steps_of_ranges
from coordinator.store.records import AssignmentRecord
from coordinator.updates.validation import check_offer, most_bytes, parse_elements, parse_update, plain_report
from mobile_sdk import safetensors
from mobile_sdk.layout import Layout, Parameter, Subset
from mobile_sdk.payload import SteppedVector, UpdateFormat, encode_update
from mobile_sdk.payload.steps import OPEN, Steps
from mobile_sdk.protocol.messages import ArtifactRef, Name, Offer, Sha256

from ..small_run import LAYOUT

PACKINGS = [UpdateFormat(dtype, top_k) for dtype in ("float32", "float16", "int8", "int4") for top_k in (1.0, 0.3)]
TEXT = st.text(st.sampled_from("ab1 \n\x1b\ud800é"), max_size=70)  # all characters would take seconds to draw from
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=10,
)


def test_known_numbers_are_kept_and_nothing_else() -> None:
    report = {"samples": 3, "loss": 0.5, "steps": True, "seconds": float("nan"), "name": "Ann", "metrics": {"a": 1}}
    assert plain_report(report) == {"samples": 3, "loss": 0.5, "metrics": {"a": 1}}


def test_numbers_that_the_database_cannot_hold_are_not_kept() -> None:
    assert plain_report({"loss": 2**63 - 1, "metrics": {"a": -(2**63) + 1}}) == {
        "loss": 2**63 - 1,
        "metrics": {"a": -(2**63) + 1},
    }
    assert plain_report({"loss": 2**63, "steps": float("inf"), "metrics": {"a": -(2**63)}}) == {"metrics": {}}
    assert plain_report({"metrics": [1], "personal_metrics": {"a": 1, "b": "x"}, "global_metrics": 3}) == {
        "metrics": {},
        "personal_metrics": {"a": 1},
        "global_metrics": {},
    }


def test_a_report_cannot_fill_the_database() -> None:
    for count in (64, 65):
        metrics = {f"m{number}": 1.0 for number in range(count)}
        assert plain_report({"metrics": metrics}) == {"metrics": metrics if count == 64 else {}}
    assert plain_report({"metrics": {"x" * 64: 1.0}}) == {"metrics": {"x" * 64: 1.0}}
    assert plain_report({"metrics": {f"m{number}": 1.0 for number in range(1000)}}) == {"metrics": {}}
    assert plain_report({"metrics": {"x" * 65: 1.0, "line\nbreak": 1.0, "good": 1.0}}) == {"metrics": {"good": 1.0}}


@given(st.dictionaries(st.sampled_from(["samples", "loss", "metrics", "personal_metrics", "other"]), JSON))
def test_whatever_is_reported_only_finite_numbers_come_out(report: dict[str, object]) -> None:
    for name, value in plain_report(report).items():
        numbers = value.values() if isinstance(value, dict) else [value]
        assert name != "other"
        assert all(isinstance(number, int | float) and abs(number) < 2**63 for number in numbers)


@pytest.mark.parametrize("packing", PACKINGS, ids=str)
@pytest.mark.parametrize("shapes", [[(1,)] * 1_000, [(512, 1)] * 200, [(3, 1, 1)] * 300, [(40, 30)]])
def test_an_honest_update_is_never_too_large_whatever_the_model(
    packing: UpdateFormat, shapes: list[tuple[int, ...]]
) -> None:
    layout = Layout([Parameter(f"blocks.{i}.a_long_name.weight", shape) for i, shape in enumerate(shapes)])
    subset = Subset.whole(layout, [p.name for p in layout])
    tier: Any = SimpleNamespace(manifest=SimpleNamespace(subset=subset), update_bytes=4 * layout.size)
    rng = np.random.default_rng(0)
    update = {p.name: rng.standard_normal(p.shape).astype(np.float32) for p in layout}
    assert len(safetensors.dumps(*encode_update(update, packing, 1))) <= most_bytes(tier)


ASSIGNMENT = AssignmentRecord(1, "phone-1", 3, "small", 0.0, open=True)
OFFER = Offer(Name("a00000001"), ArtifactRef(Sha256("ab" * 32), 100), {"version": 3, "samples": 10})
SMALL: Any = SimpleNamespace(  # two elements
    name="small",
    update_bytes=8,
    manifest=SimpleNamespace(subset=Subset(LAYOUT, {"head": None})),
)


def answer(
    assignment: AssignmentRecord | None = ASSIGNMENT,
    tier: Any = SMALL,
    staleness: int = 0,
    size: int = 100,
    encoding: str = "identity",
    **report: Any,
) -> str:
    """What comes of an offer that is a good one but for this: the code of a refusal, or nothing."""
    ref = ArtifactRef(OFFER.artifact.sha256, size, encoding)
    offer = dataclasses.replace(OFFER, artifact=ref, report=dict(OFFER.report) | report)
    try:
        found = check_offer(offer, assignment, "phone-1", tier, staleness, 5)
    except UpdateRefused as refusal:
        return refusal.code if str(refusal).isprintable() else "harmful"
    assert found == (assignment, tier)
    return ""


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({}, ""),
        ({"assignment": None}, "unknown-assignment"),
        ({"assignment": dataclasses.replace(ASSIGNMENT, device="phone-2")}, "unknown-assignment"),
        ({"assignment": dataclasses.replace(ASSIGNMENT, open=False)}, "unknown-assignment"),
        ({"tier": None}, "unknown-assignment"),
        ({"version": 2}, "unknown-version"),
        ({"version": "x" * 1000}, "unknown-version"),
        ({"samples": 1}, ""),
        ({"samples": 0}, "report"),
        ({"samples": 100_000_000}, ""),
        ({"samples": 100_000_001}, "report"),
        ({"samples": True}, "report"),
        ({"samples": 1.0}, "report"),
        ({"staleness": 5}, ""),
        ({"staleness": 6}, "stale"),
        ({"encoding": "zlib"}, "payload"),
        # Two elements, a header, and three arrays with their names.
        ({"size": 2 * 4 + 10_000 + 3 * (len("head") + 120)}, ""),
        ({"size": 2 * 4 + 10_000 + 3 * (len("head") + 120) + 1}, "size"),
    ],
    ids=str,
)
def test_an_offer_is_taken_if_it_answers_an_assignment_and_is_refused_with_the_code_of_what_is_wrong(
    change: dict[str, Any], code: str
) -> None:
    assert answer(**change) == code


def test_what_is_wrong_with_an_offer_is_quoted_and_not_at_length() -> None:
    for said, shown in (("x" * 78, repr("x" * 78)), ("x" * 79, "'" + "x" * 76 + "...")):
        offer = dataclasses.replace(OFFER, report={"version": said})
        with pytest.raises(UpdateRefused) as refusal:
            check_offer(offer, ASSIGNMENT, "phone-1", SMALL, 0, None)
        assert str(refusal.value) == f"the update was trained from version {shown}; a00000001 is for version 3"


def packed(values: list[float], how: UpdateFormat | None = None) -> bytes:
    """An update of the two elements of ``SMALL``."""
    return safetensors.dumps(*encode_update({"head": np.array(values, np.float32)}, how or UpdateFormat(), 0))


def test_an_updates_elements_come_as_they_were_sent() -> None:
    content = packed([0.5, -1e6])
    found = parse_update(content, hashlib.sha256(content).hexdigest(), SMALL)
    assert isinstance(found, np.ndarray)
    assert found.tolist() == [0.5, -1e6]
    assert isinstance(parse_elements(packed([0.0, 1e6]), SMALL), np.ndarray)


@pytest.mark.parametrize(
    ("content", "code", "words"),
    [
        (packed([1.0, np.nan]), "not-finite", "'head' holds"),
        (packed([np.inf, 0.0]), "not-finite", "'head' holds"),
        (packed([0.0, -np.inf]), "not-finite", "'head' holds"),
        (packed([0.0, 1_000_001.0]), "magnitude", r"'head' holds values beyond 1e\+06"),
        (packed([-1_000_001.0, 0.0]), "magnitude", r"'head' holds values beyond 1e\+06"),
        (b"nonsense", "payload", "not an update of the tier small"),
    ],
    ids=["not a number", "infinite", "infinite below", "large", "large below", "nonsense"],
)
def test_what_could_spoil_a_model_is_refused(content: bytes, code: str, words: str) -> None:
    with pytest.raises(UpdateRefused, match=words) as refusal:
        parse_update(content, hashlib.sha256(content).hexdigest(), SMALL)
    assert refusal.value.code == code


def test_bytes_that_are_not_those_that_were_announced_are_refused() -> None:
    with pytest.raises(UpdateRefused, match="another hash") as refusal:
        parse_update(packed([1.0, 2.0]), "ab" * 32, SMALL)
    assert refusal.value.code == "corrupted"


def on_steps(exponent: int, dtype: str = "int8") -> UpdateFormat:
    return UpdateFormat(dtype, 1.0, Steps([(2,)], np.array([exponent], np.int8)).to_text())


def test_an_update_of_integers_comes_on_the_steps_that_were_given_and_on_no_others() -> None:
    ranges = np.array([0], np.int8)  # elements below 1, in steps of 2**-6: int8 has a bit of headroom
    content = packed([0.5, -0.25], on_steps(-6))
    found = parse_elements(content, SMALL, {"small": ranges})
    assert isinstance(found, SteppedVector)
    assert found.steps is steps_of_ranges([(2,)], ranges, "int8"), "one object for all updates"
    assert isinstance(parse_elements(content, SMALL, {"large": ranges}), SteppedVector), "nothing was given"
    assert isinstance(parse_elements(content, SMALL), SteppedVector), "it was checked when it came"
    with pytest.raises(UpdateRefused, match="other steps than were given") as refusal:
        parse_elements(packed([0.5, -0.25], on_steps(-5)), SMALL, {"small": ranges})
    assert refusal.value.code == "steps"
    own = packed([0.5, -0.25], UpdateFormat("int8"))
    with pytest.raises(UpdateRefused, match="scales of its own") as refusal:
        parse_elements(own, SMALL, {"small": ranges})
    assert refusal.value.code == "steps"
    open_ranges = np.array([OPEN], np.int8)
    assert isinstance(parse_elements(own, SMALL, {"small": open_ranges}), np.ndarray), "nothing was known"
    chosen = parse_elements(packed([0.5, -0.25], on_steps(OPEN)), SMALL, {"small": open_ranges})
    assert isinstance(chosen, SteppedVector)
    assert chosen.steps.exponents[0] != OPEN, "the device has taken the smallest that fits"


@pytest.mark.parametrize(("exponent", "fits"), [(12, True), (13, False)])
def test_integers_on_steps_so_large_that_sums_could_overflow_are_refused(exponent: int, fits: bool) -> None:
    content = packed([127.0 * 2**exponent, 0.0], on_steps(exponent))
    if fits:
        parse_elements(content, SMALL)
    else:
        with pytest.raises(UpdateRefused, match=r"beyond 1e\+06") as refusal:
            parse_elements(content, SMALL)
        assert refusal.value.code == "magnitude"
