"""A lock belongs to one open file at a time, and goes with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from mobile_sdk.system.locks import Locked, hold_lock, take_lock


def test_a_lock_is_held_until_its_file_is_closed(tmp_path: Path) -> None:
    with take_lock(tmp_path / "lock"), pytest.raises(Locked):
        take_lock(tmp_path / "lock")
    take_lock(tmp_path / "lock").close()


def test_shared_locks_keep_out_only_those_who_want_it_alone(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with take_lock(path, shared=True), take_lock(path, shared=True), hold_lock(path) as free:
        assert not free
    with hold_lock(path) as free:
        assert free


def test_a_lock_is_let_go_of_when_what_was_done_under_it_fails(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), hold_lock(tmp_path / "lock"):
        raise ZeroDivisionError
    with hold_lock(tmp_path / "lock") as free:
        assert free


def test_what_is_no_place_for_a_lock_is_told_from_one_that_is_held(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        take_lock(tmp_path / "nowhere" / "lock")
