"""The run's key, and how another follows it."""

from __future__ import annotations

import asyncio
import json
import stat
from pathlib import Path

import pytest

from coordinator.errors import StoreError
from coordinator.programs.run_key import RunKey
from mobile_sdk.protocol.trust import succeeds, verify_signature


def test_a_key_is_made_once_and_readable_by_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "run.key"
    key = RunKey.load_or_create(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    again = RunKey.load_or_create(path)
    assert again.public == key.public
    assert again.predecessors == []
    assert verify_signature(key.public, b"x", asyncio.run(key.sign_challenge(b"x")))


def test_keys_follow_each_other_over_restarts(tmp_path: Path) -> None:
    path = tmp_path / "run.key"
    first = RunKey.load_or_create(path)
    second = first.rotated(path, "digits")
    third = RunKey.load_or_create(path).rotated(path, "digits")
    loaded = RunKey.load_or_create(path)
    assert loaded.public == third.public
    assert loaded.predecessors == [first.public, second.public]
    for pinned in (first, second, third):
        assert succeeds("digits", pinned.public, loaded.public, loaded.succession)
    assert not succeeds("other", first.public, loaded.public, loaded.succession)
    assert not succeeds("digits", "ab" * 32, loaded.public, loaded.succession)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_kill_between_the_list_and_the_key_leaves_the_old_key_in_charge(tmp_path: Path) -> None:
    path = tmp_path / "run.key"
    first = RunKey.load_or_create(path)
    second = first.rotated(path, "digits")
    old = path.read_bytes()
    second.rotated(path, "digits")
    path.write_bytes(old)  # as if the new key had not been written yet
    loaded = RunKey.load_or_create(path)
    assert loaded.public == second.public
    assert loaded.predecessors == [first.public]
    assert len(loaded.succession) == 1


def test_a_damaged_key_or_list_is_told_by_name(tmp_path: Path) -> None:
    path = tmp_path / "run.key"
    RunKey.load_or_create(path).rotated(path, "digits")
    (tmp_path / "succession.json").write_text(json.dumps({"steps": 3}))
    with pytest.raises(StoreError, match=r"succession\.json is damaged"):
        RunKey.load_or_create(path)
    path.write_bytes(b"short")
    with pytest.raises(StoreError, match="not a key of 32"):
        RunKey.load_or_create(path)
