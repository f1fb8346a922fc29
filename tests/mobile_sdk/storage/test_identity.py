"""Who a device is survives restarts, and is nobody else's to read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mobile_sdk.errors import StorageError
from mobile_sdk.storage.identity import Identity
from mobile_sdk.system.support import is_windows


def test_a_new_device_without_a_name_gets_one_and_a_secret_of_its_own(tmp_path: Path) -> None:
    first, second = (Identity(tmp_path / name, "digits") for name in "ab")
    assert first.device != second.device
    assert first.secret != second.secret
    assert len(first.secret) == 32
    assert (first.serial, first.enrolled) == (0, False)


def test_the_file_is_its_owners_alone_also_after_a_kill_left_a_readable_half(tmp_path: Path) -> None:
    (tmp_path / "device.json.new").write_text("half")
    (tmp_path / "device.json.new").chmod(0o644)
    Identity(tmp_path / "device.json", "digits")
    if not is_windows():  # where the folder says who may read
        assert (tmp_path / "device.json").stat().st_mode & 0o077 == 0


def test_serials_only_rise(tmp_path: Path) -> None:
    identity = Identity(tmp_path / "device.json", "digits")
    identity.raise_serial(3)
    identity.raise_serial(2)
    assert identity.serial == 3
    assert Identity(tmp_path / "device.json", "digits").serial == 3


def test_a_key_that_follows_the_pinned_one_is_remembered_for_that_pin_alone(tmp_path: Path) -> None:
    identity = Identity(tmp_path / "device.json", "digits")
    assert identity.trusted_key("aa") == "aa"
    identity.trust_key("aa", "bb")
    identity.trust_key("aa", "cc")
    identity.trust_key("dd", "ee")
    again = Identity(tmp_path / "device.json", "digits")
    assert (again.trusted_key("aa"), again.trusted_key("dd"), again.trusted_key("bb")) == ("cc", "ee", "bb")


def test_what_does_not_change_is_not_written_again(tmp_path: Path) -> None:
    identity = Identity(tmp_path / "device.json", "digits")
    identity.remember_enrolment()
    identity.raise_serial(1)
    identity.trust_key("aa", "bb")
    written = (tmp_path / "device.json").stat()
    identity.remember_enrolment()
    identity.raise_serial(1)
    identity.trust_key("aa", "bb")
    assert (tmp_path / "device.json").stat().st_ino == written.st_ino
    assert Identity(tmp_path / "device.json", "digits").enrolled


def test_an_identity_of_a_release_without_enrolment_counts_as_not_enrolled(tmp_path: Path) -> None:
    identity = {"run": "digits", "device": "phone-1", "secret": "ab" * 32, "serial": 2}
    (tmp_path / "device.json").write_text(json.dumps(identity))
    found = Identity(tmp_path / "device.json", "digits")
    assert (found.device, found.secret, found.serial, found.enrolled) == ("phone-1", b"\xab" * 32, 2, False)


def test_a_run_whose_name_the_protocol_does_not_allow_makes_no_identity(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="'my run' cannot name a run"):
        Identity(tmp_path / "device.json", "my run")
    assert not (tmp_path / "device.json").exists()


def test_a_name_that_is_too_long_is_shown_in_part_with_the_limit(tmp_path: Path) -> None:
    with pytest.raises(StorageError) as refused:
        Identity(tmp_path / "device.json", "digits", "n" * 300)
    words = str(refused.value)
    assert "a name has 1 to 64 letters, digits" in words
    assert len(words) < 200


def test_what_the_disk_did_not_take_is_not_believed_and_is_written_the_next_time(tmp_path: Path) -> None:
    home = tmp_path / "device"
    home.mkdir()
    identity = Identity(home / "device.json", "digits")
    identity.remember_enrolment()
    home.rename(tmp_path / "gone")  # as good as a full disk: nothing can be written
    changes = [
        lambda: identity.raise_serial(3),
        lambda: identity.trust_key("aa", "bb"),
        identity.forget_enrolment,
    ]
    for change in changes:
        with pytest.raises(OSError, match=r"device\.json"):
            change()
    assert (identity.serial, identity.trusted_key("aa"), identity.enrolled) == (0, "aa", True)
    (tmp_path / "gone").rename(home)
    for change in changes:
        change()
    again = Identity(home / "device.json", "digits")
    assert (again.serial, again.trusted_key("aa"), again.enrolled) == (3, "bb", False)
