"""Memory that a process has for itself, as each system counts it."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mobile_sdk.system.footprint import footprint_bytes, peak_footprint_bytes, resident_bytes, return_free_memory

from .other_systems import as_on, load

MEGABYTE = 1_000_000


class MacOS:
    """The two functions of macOS' C library, which fill a structure and begin a new interval of its maximum."""

    def __init__(self, usage: Any) -> None:
        self.usage = usage
        self.footprint, self.largest = 40 * MEGABYTE, 90 * MEGABYTE
        self.code = 0

    def take(self, size: int) -> None:
        """As a program that allocates: its maximum follows."""
        self.footprint = size
        self.largest = max(self.largest, size)

    def proc_pid_rusage(self, pid: int, flavor: int, buffer: Any) -> int:
        assert (pid, flavor) == (os.getpid(), 4)
        usage = ctypes.cast(buffer, ctypes.POINTER(self.usage)).contents
        usage.phys_footprint, usage.interval_max_phys_footprint = self.footprint, self.largest
        usage.resident_size = self.footprint + 100 * MEGABYTE  # what is mapped of files is resident, too
        return self.code

    def proc_reset_footprint_interval(self, pid: int) -> int:
        assert pid == os.getpid()
        self.largest = self.footprint
        return self.code


@pytest.fixture
def on_macos(monkeypatch: pytest.MonkeyPatch) -> tuple[Any, MacOS]:
    """The module as macOS loads it, and its system."""
    with as_on("darwin"):
        module = load("mobile_sdk.system.footprint")
    system = MacOS(module._Usage)
    monkeypatch.setattr(ctypes, "CDLL", lambda name, **_: system)
    return module, system


def test_macos_counts_the_footprint_and_its_maximum_within_the_work_alone(on_macos: tuple[Any, MacOS]) -> None:
    module, system = on_macos
    assert module.footprint_bytes() == 40 * MEGABYTE
    assert module.resident_bytes() == 140 * MEGABYTE

    def work() -> None:
        system.take(60 * MEGABYTE)
        system.take(45 * MEGABYTE)

    assert module.peak_footprint_bytes(work) == 60 * MEGABYTE, "90 MB were before the work"


def test_macos_that_does_not_say_is_an_error_in_words(on_macos: tuple[Any, MacOS]) -> None:
    module, system = on_macos
    system.code = -1
    for ask in (module.footprint_bytes, module.resident_bytes, lambda: module.peak_footprint_bytes(lambda: None)):
        with pytest.raises(OSError, match="the system does not"):
            ask()


def test_windows_does_not_measure_it() -> None:
    with as_on("win32") as patch:
        module = load("mobile_sdk.system.footprint")
        patch.setattr(module, "status_bytes", lambda field: None)
        with pytest.raises(OSError, match="memory is measured on Linux and macOS"):
            module.footprint_bytes()


@pytest.mark.skipif(importlib.util.find_spec("ziglang") is None, reason="needs pip install -e '.[wheels]'")
@pytest.mark.full
def test_the_structure_is_that_of_macos_own_header(tmp_path: Path, on_macos: tuple[Any, MacOS]) -> None:
    """Ziglang brings the header; the compiler compares every field's place, and that the functions' names exist."""
    usage = on_macos[0]._Usage
    lines = ["#include <stddef.h>", "#include <sys/resource.h>", "#include <libproc.h>"]
    lines.append(f'_Static_assert(sizeof(struct rusage_info_v4) == {ctypes.sizeof(usage)}, "size");')
    lines.append('_Static_assert(RUSAGE_INFO_V4 == 4, "flavor");')
    for name, _ in usage._fields_:
        place = getattr(usage, name).offset
        lines.append(f'_Static_assert(offsetof(struct rusage_info_v4, ri_{name}) == {place}, "{name}");')
    lines.append("int proc_reset_footprint_interval(int pid);")
    lines.append("int main(void) { return proc_pid_rusage(1, RUSAGE_INFO_V4, 0) + proc_reset_footprint_interval(1); }")
    source = tmp_path / "check.c"
    source.write_text("\n".join(lines))
    command = [sys.executable, "-m", "ziglang", "cc", "-target", "aarch64-macos.14.0", source, "-o", tmp_path / "check"]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux's")
def test_linux_sees_what_is_allocated_and_given_back_within_the_work() -> None:
    before = footprint_bytes()

    def work() -> None:
        np.ones(80 * MEGABYTE, np.uint8)

    peak = peak_footprint_bytes(work)
    assert 70 * MEGABYTE < peak - before < 100 * MEGABYTE
    assert footprint_bytes() < before + 40 * MEGABYTE
    assert resident_bytes() > footprint_bytes()


@pytest.mark.skipif(
    sys.platform == "win32" or not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="the C library has no such call"
)
def test_what_was_freed_before_is_no_part_of_the_footprint() -> None:
    """Blocks below the size that is mapped by itself leave holes in the heap, which stay resident."""
    blocks = [ctypes.create_string_buffer(100_000) for _ in range(200)]
    del blocks[::2]  # the last of each pair keeps the heap's end where it is
    before = footprint_bytes()
    return_free_memory()
    assert footprint_bytes() < before - 5 * MEGABYTE


def test_a_system_whose_c_library_keeps_its_memory_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    return_free_memory()
