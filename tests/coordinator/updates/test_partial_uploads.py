"""Updates on their way up: in memory as long as there is enough of it, else in files; nothing of them is left."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from coordinator.errors import StoreUnavailable
from coordinator.updates import partial_uploads as uploads
from coordinator.updates.partial_uploads import Uploads
from mobile_sdk.protocol.messages import ArtifactRef, Sha256

REF = ArtifactRef(Sha256("ab" * 32), 3000)


def test_what_does_not_fit_into_memory_goes_to_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "MEMORY_BYTES", 2500)
    parts = Uploads(tmp_path)
    first, second = parts.begin("phone-1", REF, 0.0), parts.begin("phone-2", REF, 0.0)
    first.append(b"1" * 1500)
    second.append(b"2" * 1000)
    assert not first.should_spool(0.0)
    assert not second.should_spool(0.0)
    second.append(b"2" * 1000)
    assert second.should_spool(0.0)
    second.spool(0.0)
    assert not first.should_spool(0.0), "there is room again"
    first.append(b"1" * 1500)
    second.append(b"3" * 1000)
    assert first.content() == b"1" * 3000
    assert second.content() == b"2" * 2000 + b"3" * 1000
    for upload in (first, second):
        upload.drop()
    assert list(tmp_path.iterdir()) == []
    third = parts.begin("phone-3", REF, 0.0)
    third.append(b"4" * 2500)
    assert not third.should_spool(0.0), "what is forgotten takes no memory"


def spooled(parts: Uploads, device: str, content: bytes, ref: ArtifactRef = REF) -> uploads.Upload:
    upload = parts.begin(device, ref, 0.0)
    upload.append(content)
    upload.spool(0.0)
    return upload


def test_another_update_of_the_device_takes_the_place_of_the_unfinished_one(tmp_path: Path) -> None:
    parts = Uploads(tmp_path)
    other = ArtifactRef(Sha256("cd" * 32), 3000)
    spooled(parts, "phone-1", b"1" * 100)
    spooled(parts, "phone-2", b"2" * 100)
    assert parts.begin("phone-1", other, 1.0).size == 0
    assert [path.name.split("@")[0] for path in tmp_path.iterdir()] == ["phone-2"]
    # Nothing of `other` has come to its file: there is nothing to remove when the first is sent again.
    assert parts.begin("phone-1", REF, 2.0).size == 0


@pytest.mark.parametrize("written", [0, 100])
def test_a_device_that_is_back_before_its_older_connection_has_left_goes_on(tmp_path: Path, written: int) -> None:
    parts = Uploads(tmp_path)
    older = parts.begin("phone-1", REF, 0.0)
    older.append(b"1" * written)
    older.spool(0.0)
    older.append(b"2" * 100)
    newer = parts.begin("phone-1", REF, 1.0)
    assert (newer.size, newer.resumed) == (written + 100, True)
    older.append(b"3" * 50)  # still on its way there
    older.spool(2.0)
    older.drop()
    newer.append(b"4" * 100)
    assert newer.content() == b"1" * written + b"2" * 100 + b"4" * 100
    newer.spool(3.0)
    assert Uploads(tmp_path).begin("phone-1", REF, 4.0).content() == newer.content()
    newer.drop()
    older.spool(5.0)
    assert list(tmp_path.iterdir()) == []
    assert not parts.begin("phone-2", REF, 0.0).should_spool(0.0)
    assert parts._memory.bytes == 0


def test_what_an_older_connection_has_of_another_update_is_left_nowhere(tmp_path: Path) -> None:
    parts = Uploads(tmp_path)
    older = parts.begin("phone-1", REF, 0.0)
    older.append(b"1" * 100)
    assert parts.begin("phone-1", ArtifactRef(Sha256("cd" * 32), 3000), 1.0).size == 0
    older.spool(2.0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("kept", "resumes"), [(0, 0), (1, 1), (2999, 2999), (3000, 3000), (3001, 0)])
def test_an_upload_goes_on_unless_there_is_more_than_there_should_be(tmp_path: Path, kept: int, resumes: int) -> None:
    (tmp_path / f"phone-1@{REF.sha256}").write_bytes(b"1" * kept)
    upload = Uploads(tmp_path).begin("phone-1", REF, 0.0)
    assert (upload.size, upload.resumed) == (resumes, resumes > 0)
    upload.drop()
    assert list(tmp_path.iterdir()) == []


def test_what_is_forgotten_while_it_is_being_written_leaves_nothing(tmp_path: Path) -> None:
    parts = Uploads(tmp_path)
    upload = spooled(parts, "phone-1", b"1" * 100)
    upload.append(b"1" * 100)
    parts.forget("phone-1")
    upload.spool(1.0)  # the thread comes to it only now
    assert list(tmp_path.iterdir()) == []
    assert (upload.size, upload.resumed) == (0, False)


def test_old_parts_go_and_newer_ones_stay(tmp_path: Path) -> None:
    parts = Uploads(tmp_path)
    for device in ("phone-1", "phone-2"):
        spooled(parts, device, b"1" * 100)
    os.utime(tmp_path / f"phone-1@{REF.sha256}", (50.0, 50.0))
    assert parts.expire(100.0) == 1
    assert [path.name.split("@")[0] for path in tmp_path.iterdir()] == ["phone-2"]


def test_a_slow_upload_goes_to_its_file_now_and_then(tmp_path: Path) -> None:
    upload = Uploads(tmp_path).begin("phone-1", REF, 0.0)
    upload.append(b"1" * 1000)
    assert not upload.should_spool(5.0)
    assert upload.should_spool(5.1)
    upload.spool(6.0)
    upload.append(b"1" * 1000)
    assert not upload.should_spool(11.0), "it was written a moment ago"
    assert upload.should_spool(11.1)
    upload.append(b"1" * 1000)
    assert not upload.should_spool(100.0), "it has come whole"
    assert Uploads(tmp_path).begin("phone-1", REF, 7.0).size == 1000, "over a restart"


def test_of_an_upload_of_which_nothing_has_come_there_is_no_file(tmp_path: Path) -> None:
    upload = Uploads(tmp_path).begin("phone-1", REF, 0.0)
    upload.spool(6.0)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_left_of_updates_that_nobody_waits_for(tmp_path: Path) -> None:
    parts = Uploads(tmp_path)
    for device in ("phone-1", "phone-2"):
        spooled(parts, device, b"1" * 100)
    again = Uploads(tmp_path)
    again.forget_all_but({"phone-2"})
    assert [path.name.split("@")[0] for path in tmp_path.iterdir()] == ["phone-2"]
    again.accepted("phone-2", "cd" * 32)  # another update of the device: this one is still to come
    assert len(list(tmp_path.iterdir())) == 1
    again.accepted("phone-2", REF.sha256)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fails_is_said_to_be_unavailable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = Uploads(tmp_path)
    upload = spooled(parts, "phone-1", b"1" * 100)
    upload.append(b"2" * 100)

    def fails(*args: object, **options: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "open", fails)
    monkeypatch.setattr(Path, "unlink", fails)
    for step in (lambda: upload.spool(1.0), upload.drop, lambda: parts.forget("phone-1")):
        with pytest.raises(StoreUnavailable, match="Read-only file system"):
            step()


@pytest.mark.parametrize("left", [0, 10])
def test_what_a_failing_disk_has_left_of_a_part_goes_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: int
) -> None:
    parts = Uploads(tmp_path)
    upload = parts.begin("phone-1", REF, 0.0)
    upload.append(b"1" * 3000)
    real = Path.open

    def fails(path: Path, mode: str) -> None:
        with real(path, mode) as file:
            file.write(b"1" * left)
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", fails)
        with pytest.raises(StoreUnavailable):
            upload.spool(1.0)
    assert len(list(tmp_path.iterdir())) == 1
    assert upload.on_disk
    assert upload.content() == b"1" * 3000
    upload.drop()
    assert list(tmp_path.iterdir()) == []


def test_all_uploads_together_have_256_megabytes_of_memory(tmp_path: Path) -> None:
    class Long(bytes):
        def __len__(self) -> int:
            return 128_000_000

    parts = Uploads(tmp_path)
    ref = ArtifactRef(REF.sha256, 10**9)
    for device in ("phone-1", "phone-2"):
        upload = parts.begin(device, ref, 0.0)
        upload.append(Long())
        assert not upload.should_spool(0.0)
    upload.append(b"1")
    assert upload.should_spool(0.0)


def test_a_part_is_on_the_disk_once_it_was_written_and_known_by_device_and_hash(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "parts"
    parts = Uploads(folder)
    upload = parts.begin("phone-1", REF, 0.0)
    assert not upload.on_disk
    assert not upload.resumed
    upload.append(b"1")
    upload.spool(0.0)
    assert upload.on_disk
    again = Uploads(folder)
    assert again.kept == {("phone-1", REF.sha256)}
    resumed = again.begin("phone-1", REF, 0.0)
    assert (resumed.on_disk, resumed.resumed, resumed.size) == (True, True, 1)
    resumed.drop()
    assert (resumed.on_disk, resumed.resumed, resumed.size) == (False, False, 0)


def test_what_a_crash_left_behind_what_was_written_is_not_sent_on(tmp_path: Path) -> None:
    """A longer file than was written down: its end is of a write that nobody counted."""
    parts = Uploads(tmp_path)
    upload = spooled(parts, "phone-1", b"1" * 100)
    with (tmp_path / f"phone-1@{REF.sha256}").open("ab") as file:
        file.write(b"torn")
    upload.append(b"2" * 50)
    assert upload.content() == b"1" * 100 + b"2" * 50
    upload.spool(1.0)
    assert upload.content() == b"1" * 100 + b"2" * 50


def test_parts_that_another_process_left_go_too(tmp_path: Path) -> None:
    parts = Uploads(tmp_path)
    for number, device in enumerate(("phone-1", "phone-2", "phone-3")):
        path = tmp_path / f"{device}@{REF.sha256}"
        path.write_bytes(b"1")
        os.utime(path, (50.0 + number, 50.0 + number))
    assert parts.expire(51.0) == 1, "since the moment itself it is not old"
    assert {device for device, _ in parts.kept} == {"phone-2", "phone-3"}
    parts.forget("phone-2")
    assert [path.name.split("@")[0] for path in tmp_path.iterdir()] == ["phone-3"]
    assert parts.kept == {("phone-3", REF.sha256)}


def test_with_no_seconds_to_lose_every_chunk_is_written(tmp_path: Path) -> None:
    upload = Uploads(tmp_path, spool_seconds=0.0).begin("phone-1", REF, 1.0)
    upload.append(b"1")
    assert upload.should_spool(1.001)


def test_what_has_come_of_an_upload_can_go_to_another_machine_and_on_there(tmp_path: Path) -> None:
    ref = ArtifactRef(Sha256("ab" * 32), 10)
    here, there = Uploads(tmp_path / "here"), Uploads(tmp_path / "there")
    assert here.take("phone-1") is None
    upload = here.begin("phone-1", ref, 0.0)
    upload.append(b"01234")
    assert here.take("phone-1") is None, "it is in memory, and its connection goes on"
    upload.spool(1.0)
    assert here.part("phone-1", ref.sha256, 3, 1) == (5, b"3")
    assert here.part("phone-1", ref.sha256, 9, 1) == (5, b"")
    assert here.take("phone-1") == (ref, b"01234")
    assert not here.has("phone-1", ref.sha256)
    assert here.part("phone-1", ref.sha256, 0, 9) == (0, b"")
    there.put("phone-1", ref.sha256, 0, b"012xx")
    there.put("phone-1", ref.sha256, 3, b"34")  # the last piece came anew
    assert there.has("phone-1", ref.sha256)
    assert there.knows("phone-1", ref.sha256)
    gone_on = there.begin("phone-1", ref, 2.0)
    assert (gone_on.size, bytes(gone_on.content())) == (5, b"01234")
