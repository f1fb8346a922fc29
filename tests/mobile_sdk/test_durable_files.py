"""A file is replaced as a whole."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from mobile_sdk import durable_files
from mobile_sdk.durable_files import write_durably


def test_the_content_is_synced_before_the_name_and_the_name_before_it_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[tuple[str, bool]] = []
    path = tmp_path / "file"

    def sync(descriptor: int) -> None:
        synced.append((Path(f"/proc/self/fd/{descriptor}").readlink().name, path.exists()))

    monkeypatch.setattr(os, "fsync", sync)
    write_durably(path, b"con", memoryview(b"tent"))
    assert synced == [("file.new", False), (tmp_path.name, True)]
    assert path.read_bytes() == b"content"


def test_a_write_that_fails_leaves_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_durably(path, b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_durably(path, b"new")
    assert path.read_bytes() == b"old"


def test_a_file_that_does_not_fit_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "checkpoint"
    write_durably(path, b"before")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(durable_files, "sync_file", full)
    with pytest.raises(OSError, match="No space left"):
        write_durably(path, b"much" * 1000)
    assert [file.name for file in tmp_path.iterdir()] == ["checkpoint"]
    assert path.read_bytes() == b"before"
