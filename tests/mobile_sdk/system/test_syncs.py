"""What is synced so that it survives a power cut."""

from __future__ import annotations

from pathlib import Path

import pytest

from mobile_sdk.system import syncs
from mobile_sdk.system.syncs import make_folder


def test_the_name_of_every_folder_that_is_made_is_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(syncs, "sync_folder", synced.append)
    make_folder(tmp_path / "a" / "b" / "c", 0o700)
    assert (tmp_path / "a" / "b" / "c").is_dir()
    assert set(synced) == {tmp_path, tmp_path / "a", tmp_path / "a" / "b"}
    synced.clear()
    make_folder(tmp_path / "a" / "b" / "c")
    assert synced == [tmp_path / "a" / "b"], "a process before may have been killed in between"


def test_a_folder_below_one_that_may_not_be_read_can_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(folder: Path) -> None:
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr(syncs, "sync_folder", refuse)
    make_folder(tmp_path / "state")
    assert (tmp_path / "state").is_dir()
