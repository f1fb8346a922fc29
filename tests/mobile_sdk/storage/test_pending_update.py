"""A finished update is there as a whole, or not at all, until it is acknowledged."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from mobile_sdk import durable_files
from mobile_sdk.storage import pending_update
from mobile_sdk.storage.pending_update import UpdateFolder


@pytest.fixture
def updates(tmp_path: Path) -> UpdateFolder:
    return UpdateFolder(tmp_path / "update", tmp_path / "residual")


def test_the_description_is_written_last_so_that_a_kill_leaves_no_half(
    updates: UpdateFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    write = durable_files.write_durably

    def killed_at(last: str) -> None:
        def write_until(path: Path, *content: bytes | memoryview) -> None:
            write(path, *content)
            written.append(path.name)
            if path.name == last:
                raise KeyboardInterrupt

        monkeypatch.setattr(pending_update, "write_durably", write_until)

    killed_at("residual")
    with pytest.raises(KeyboardInterrupt):
        updates.save("a00000001", [b"content"], {}, b"left out")
    assert len(written) == 2
    assert updates.pending() is None
    assert not (tmp_path / "update").exists()


def test_what_an_update_left_out_counts_once_it_is_acknowledged(updates: UpdateFolder) -> None:
    assert updates.residual() == b""
    updates.save("a00000001", [b"content"], {}, b"left out by the first")
    assert updates.residual() == b""
    updates.accept()
    assert updates.residual() == b"left out by the first"
    updates.save("a00000002", [b"content"], {}, b"left out by the second")
    updates.drop()
    assert updates.residual() == b"left out by the first", "a refused update leaves nothing out"
    updates.save("a00000003", [b"content"], {})
    updates.accept()
    assert updates.residual() == b"left out by the first"


def test_the_size_and_hash_are_of_all_pieces(updates: UpdateFolder) -> None:
    saved = updates.save("a00000001", [b"con", memoryview(b"tent")], {"samples": 3})
    assert saved.artifact.size == 7
    assert bytes(updates.content(saved.artifact)) == b"content"
    assert updates.pending() == saved


def test_a_report_that_is_no_json_leaves_no_update(updates: UpdateFolder) -> None:
    with pytest.raises(ValueError, match="JSON"):
        updates.save("a00000001", [b"content"], {"loss": float("nan")})
    assert updates.pending() is None


def test_room_for_the_update_is_kept_while_it_is_trained_and_given_to_it(
    updates: UpdateFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reserved = tmp_path / "update.reserved"
    updates.reserve(100_000)
    assert reserved.stat().st_blocks * 512 >= 100_000, "the blocks are taken, not only named"
    seen: list[bool] = []
    write = durable_files.write_durably

    def look(path: Path, *content: bytes | memoryview) -> None:
        seen.append(reserved.exists())
        write(path, *content)

    monkeypatch.setattr(pending_update, "write_durably", look)
    updates.save("a00000001", [b"content"], {})
    assert seen == [False, False], "it is free before the first byte is written"
    updates.reserve(10)
    updates.drop()
    assert not reserved.exists()


def test_what_does_not_fit_is_said_and_leaves_nothing(
    updates: UpdateFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int, start: int, size: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="there is no room for 5000 bytes") as error:
        updates.reserve(5000)
    assert error.value.errno == errno.ENOSPC
    assert list(tmp_path.iterdir()) == []
    monkeypatch.delattr(os, "posix_fallocate")
    updates.reserve(200_000)
    assert (tmp_path / "update.reserved").read_bytes() == bytes(200_000)
