"""A device's folder survives kills and damage, and belongs to one process and one run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mobile_sdk.errors import StorageError
from mobile_sdk.storage.device_storage import DeviceStorage
from mobile_sdk.system.support import is_windows


def test_identity_survives_a_restart_and_is_its_owners_alone(tmp_path: Path) -> None:
    storage = DeviceStorage(tmp_path / "phone", "digits", "phone-1")
    secret = storage.identity.secret
    storage.identity.raise_serial(3)
    storage.identity.remember_enrolment()
    storage.close()
    again = DeviceStorage(tmp_path / "phone", "digits", "another-name")
    who = again.identity
    assert (who.device, who.secret, who.serial, who.enrolled) == ("phone-1", secret, 3, True)
    if not is_windows():  # where the folder says who may read
        assert (tmp_path / "phone" / "device.json").stat().st_mode & 0o077 == 0
    again.identity.raise_serial(2)
    assert again.identity.serial == 3
    again.close()


def test_a_folder_serves_one_process_at_a_time(tmp_path: Path) -> None:
    storage = DeviceStorage(tmp_path, "digits")
    with pytest.raises(StorageError, match="another process"):
        DeviceStorage(tmp_path, "digits")
    storage.close()
    DeviceStorage(tmp_path, "digits").close()


def test_a_folder_of_another_run_is_refused(tmp_path: Path) -> None:
    DeviceStorage(tmp_path, "digits").close()
    with pytest.raises(StorageError, match="'digits', not 'words'"):
        DeviceStorage(tmp_path, "words")


def test_a_name_that_the_protocol_does_not_allow_is_not_kept(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="'my phone' cannot name a device"):
        DeviceStorage(tmp_path, "digits", "my phone")
    storage = DeviceStorage(tmp_path, "digits", "my-phone")
    assert storage.identity.device == "my-phone"
    storage.close()


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"run": "digits", "device": "x", "secret": "zz", "serial": 0}'])
def test_a_damaged_identity_is_named_with_the_remedy(content: str, tmp_path: Path) -> None:
    (tmp_path / "device.json").write_text(content)
    with pytest.raises(StorageError, match=r"device\.json is damaged.*remove it"):
        DeviceStorage(tmp_path, "digits")
    # The refusal did not keep the lock.
    (tmp_path / "device.json").unlink()
    DeviceStorage(tmp_path, "digits").close()


def test_a_finished_update_is_kept_until_it_is_dropped(tmp_path: Path) -> None:
    storage = DeviceStorage(tmp_path, "digits")
    saved = storage.save_update("a00000001", [b"con", b"tent"], {"samples": 3})
    storage.close()
    again = DeviceStorage(tmp_path, "digits")
    assert again.update.pending() == saved
    assert bytes(again.update.content(saved.artifact)) == b"content"
    again.update.drop()
    assert again.update.pending() is None
    again.close()


@pytest.mark.parametrize("damage", ["content", "description", "no description"])
def test_a_damaged_update_is_dropped_so_that_the_work_is_done_again(damage: str, tmp_path: Path) -> None:
    storage = DeviceStorage(tmp_path, "digits")
    saved = storage.save_update("a00000001", [b"content"], {"samples": 3})
    description = tmp_path / "update" / "update.json"
    if damage == "content":
        (tmp_path / "update" / saved.artifact.sha256).write_bytes(b"c0ntent")
    elif damage == "description":
        description.write_text(json.dumps({"assignment": "a00000001"}))
    else:
        description.unlink()
    assert storage.update.pending() is None
    assert not (tmp_path / "update").exists()
    storage.close()


@pytest.mark.parametrize("damage", [b"", b"short", b"x" * 500], ids=["empty", "torn", "other bytes"])
def test_a_damaged_training_is_none_so_that_it_begins_anew(damage: bytes, tmp_path: Path) -> None:
    storage = DeviceStorage(tmp_path, "digits")
    assert storage.training() is None
    storage.save_training([b"trained ", memoryview(b"so far")])
    assert bytes(storage.training() or b"") == b"trained so far"
    (tmp_path / "training.safetensors").write_bytes(damage)
    assert storage.training() is None
    storage.drop_training()
    storage.drop_training()
    assert storage.training() is None
    storage.close()


def test_what_a_kill_left_half_written_goes_at_the_start(tmp_path: Path) -> None:
    DeviceStorage(tmp_path, "digits", "phone-1").close()
    (tmp_path / "training.safetensors.new").write_bytes(bytes(1000))
    (tmp_path / "programs" / "ab.new").mkdir()
    (tmp_path / "programs" / "ab.new" / "program.pte").write_bytes(b"half")
    (tmp_path / "update").mkdir()
    (tmp_path / "update" / "cd.new").write_bytes(b"half")
    DeviceStorage(tmp_path, "digits").close()
    assert not list(tmp_path.rglob("*.new"))
