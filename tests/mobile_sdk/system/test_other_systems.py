"""The functions of every system keep the same promises."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from .other_systems import as_on, load

SYSTEMS = ("linux", "darwin", "win32")


def msvcrt() -> types.ModuleType:
    """Windows' module for locks: ranges of bytes, owned by the open file, given up when it is closed."""
    module: Any = types.ModuleType("msvcrt")
    module.LK_LOCK, module.LK_NBLCK = 1, 2

    def locking(descriptor: int, mode: int, count: int) -> None:
        assert os.lseek(descriptor, 0, os.SEEK_CUR) == 0, "a range of bytes begins where the file stands"
        assert count == 1
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if mode == module.LK_LOCK else fcntl.LOCK_NB))

    module.locking = locking
    return module


def fcntl_of_macos(asked: list[int]) -> types.ModuleType:
    """MacOS' module, which has a request that Linux has not."""
    module: Any = types.ModuleType("fcntl")
    module.__dict__.update({name: value for name, value in vars(fcntl).items() if not name.startswith("__")})
    module.F_FULLFSYNC = 51

    def request(descriptor: int, command: int) -> int:
        assert command == module.F_FULLFSYNC
        os.fstat(descriptor)  # it must be open
        asked.append(descriptor)
        return 0

    module.fcntl = request
    return module


def on(system: str, name: str, given: dict[str, types.ModuleType] | None = None) -> Any:
    """A module of the SDK as ``system`` loads it."""
    if system == "linux":
        return load(name)
    with as_on(system, given):
        return load(name)


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_lock_has_one_holder_until_its_file_is_closed(system: str, tmp_path: Path) -> None:
    locks = on(system, "mobile_sdk.system.locks", {"msvcrt": msvcrt()} if system == "win32" else None)
    first = locks.take_lock(tmp_path / "lock")
    with pytest.raises(locks.Locked, match="lock is locked by another process"):
        locks.take_lock(tmp_path / "lock")
    first.close()
    locks.take_lock(tmp_path / "lock").close()


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_lock_in_a_folder_that_is_missing_is_no_lock_that_another_holds(system: str, tmp_path: Path) -> None:
    locks = on(system, "mobile_sdk.system.locks", {"msvcrt": msvcrt()} if system == "win32" else None)
    with pytest.raises(FileNotFoundError):
        locks.take_lock(tmp_path / "missing" / "lock")


def test_readers_share_a_lock_and_keep_writers_out(tmp_path: Path) -> None:
    locks = load("mobile_sdk.system.locks")
    readers = [locks.take_lock(tmp_path / "lock", shared=True) for _ in range(2)]
    with pytest.raises(locks.Locked):
        locks.take_lock(tmp_path / "lock")
    for reader in readers:
        reader.close()
    locks.take_lock(tmp_path / "lock").close()


def test_a_killed_process_lets_go_of_its_lock(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from mobile_sdk.system.locks import take_lock; "
        "lock = take_lock(pathlib.Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"
    )
    locks = load("mobile_sdk.system.locks")
    command = [sys.executable, "-c", code, str(tmp_path / "lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(locks.Locked):
            locks.take_lock(tmp_path / "lock")
        holder.kill()
    locks.take_lock(tmp_path / "lock").close()


def test_macos_waits_for_the_disk_and_not_only_for_its_cache(tmp_path: Path) -> None:
    asked: list[int] = []
    with as_on("darwin", {"fcntl": fcntl_of_macos(asked)}) as patch:
        syncs = load("mobile_sdk.system.syncs")
        patch.setattr(os, "fsync", lambda descriptor: pytest.fail("fsync leaves the bytes in the disk's cache"))
        with (tmp_path / "file").open("wb") as file:
            for sync in (syncs.sync_file, syncs.sync_data):
                sync(file.fileno())
            assert asked == [file.fileno()] * 2
        syncs.sync_folder(tmp_path)
    assert len(asked) == 3


def test_macos_syncs_what_a_network_drive_knows_where_it_knows_no_more(tmp_path: Path) -> None:
    synced: list[int] = []
    module: Any = fcntl_of_macos([])

    def refuse(descriptor: int, command: int) -> int:
        raise OSError(45, "Operation not supported")

    module.fcntl = refuse
    with as_on("darwin", {"fcntl": module}) as patch:
        syncs = load("mobile_sdk.system.syncs")
        patch.setattr(os, "fsync", synced.append)
        with (tmp_path / "file").open("wb") as file:
            syncs.sync_file(file.fileno())
            assert synced == [file.fileno()]


def test_windows_syncs_files_and_opens_no_folder(tmp_path: Path) -> None:
    synced: list[int] = []
    with as_on("win32") as patch:
        syncs = load("mobile_sdk.system.syncs")
        patch.setattr(os, "fsync", synced.append)
        syncs.sync_file(3)
        syncs.sync_data(4)
        patch.setattr(os, "open", lambda *_: pytest.fail("Windows opens no folders"))
        syncs.sync_folder(tmp_path)
    assert synced == [3, 4]


@pytest.mark.parametrize("system", ["linux", "darwin"])
def test_peak_memory_is_in_bytes(system: str) -> None:
    memory = on(system, "mobile_sdk.system.memory")
    if system == "darwin":  # no /proc; getrusage counts bytes there, kilobytes here
        memory.status_bytes = lambda field: None
        assert memory._MAXRSS_BYTES == 1
        assert memory.peak_rss_bytes() > 1_000
    else:
        assert 5e6 < memory.peak_rss_bytes() < 50e9


def test_the_command_line_and_the_policies_import_on_windows() -> None:
    """All of the SDK but the native engine, in a fresh interpreter that has what Windows has."""
    code = """
import signal, sys
from tests.mobile_sdk.system.other_systems import as_on
from tests.mobile_sdk.system.test_other_systems import msvcrt
import asyncio, concurrent.futures, ctypes, getpass, numpy, ssl, subprocess, tempfile, websockets.asyncio.client
signal.SIGBREAK = signal.SIGTERM
with as_on("win32", {"msvcrt": msvcrt()}):
    import mobile_sdk, mobile_sdk.cli, mobile_sdk.client, mobile_sdk.blocking, mobile_sdk.data, mobile_sdk.conditions
    import mobile_sdk.engines.interpreted, mobile_sdk.policy.rules, mobile_sdk.storage.device_storage
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("system", ["linux", "win32"])
def test_being_told_to_end_reaches_the_event_loop(system: str) -> None:
    async def wait(signals: Any, number: signal.Signals) -> None:
        told = asyncio.Event()
        signals.call_when_told_to_end(asyncio.get_running_loop(), told.set)
        signal.raise_signal(number)
        await asyncio.wait_for(told.wait(), 10)

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        if system == "linux":
            asyncio.run(wait(load("mobile_sdk.system.signals"), signal.SIGTERM))
        else:
            with as_on("win32") as patch:
                patch.setattr(signal, "SIGBREAK", signal.SIGTERM, raising=False)
                signals = load("mobile_sdk.system.signals")
                asyncio.run(wait(signals, signal.SIGINT))
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_a_secret_is_closed_to_others_from_the_first_instant(tmp_path: Path) -> None:
    secrets = load("mobile_sdk.system.secret_files")
    mask = os.umask(0)
    try:
        secrets.create_secret(tmp_path / "key", b"1")
        secrets.replace_secret(tmp_path / "key", b"2")
        secrets.replace_secret(tmp_path / "new", b"3")
    finally:
        os.umask(mask)
    assert [(path.name, path.stat().st_mode & 0o777, path.read_bytes()) for path in sorted(tmp_path.iterdir())] == [
        ("key", 0o600, b"2"),
        ("new", 0o600, b"3"),
    ]
    with pytest.raises(FileExistsError):
        secrets.create_secret(tmp_path / "key", b"4")
    assert (tmp_path / "key").read_bytes() == b"2"


def test_a_secret_that_cannot_be_written_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = load("mobile_sdk.system.secret_files")
    secrets.replace_secret(tmp_path / "key", b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(secrets, "sync_file", full)
    with pytest.raises(OSError, match="No space left"):
        secrets.replace_secret(tmp_path / "key", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["key"]
    assert (tmp_path / "key").read_bytes() == b"old"


@pytest.mark.parametrize("system", ["linux", "win32"])
def test_content_is_written_at_its_place_whole_though_the_system_takes_a_part_at_a_time(
    system: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writing = on(system, "mobile_sdk.system.writing")
    call = "pwrite" if system == "linux" else "write"
    real: Any = getattr(os, call)
    monkeypatch.setattr(os, call, lambda descriptor, content, *at: real(descriptor, content[:3], *at))
    with (tmp_path / "file").open("wb") as file:
        writing.write_at(file.fileno(), b"0123456789", 0)
        writing.write_at(file.fileno(), b"abcdefg", 2)
    assert (tmp_path / "file").read_bytes() == b"01abcdefg9"


def test_open_files_are_allowed_for_as_long_as_they_are_needed() -> None:
    files = load("mobile_sdk.system.open_files")
    soft, hard = files.open_file_limits()
    more = min(soft + 1, hard)
    with files.allow_open_files(more):
        assert files.open_file_limits()[0] == more
    assert files.open_file_limits() == (soft, hard)
    if hard < sys.maxsize:
        with pytest.raises(files.TooFewFiles, match=f"allows {hard} open files"), files.allow_open_files(hard + 1):
            pass


def test_windows_has_no_limit_on_open_files() -> None:
    with as_on("win32"):
        files = load("mobile_sdk.system.open_files")
        with files.allow_open_files(10_000_000):
            assert files.open_file_limits()[0] > 10_000_000


def test_only_this_package_asks_which_system_it_runs_on() -> None:
    root = Path(__file__).parents[3]
    asking = {
        str(path.relative_to(root))
        for package in ("mobile_sdk", "coordinator", "exporters", "ftte", "android_demo")
        for path in (root / package).rglob("*.py")
        if "build" not in path.relative_to(root).parts[:2]
        if any(mark in path.read_text() for mark in ("sys.platform", "os.name", "import fcntl", "import resource"))
        if path.parent != root / "mobile_sdk" / "system"
    }
    assert asking == set()
