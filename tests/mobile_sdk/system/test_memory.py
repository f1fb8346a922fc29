"""What a process gives back to the system."""

from __future__ import annotations

import gc
import subprocess
import sys
import weakref

import pytest

from mobile_sdk.system.memory import _clean_mappings, release_memory

HEADER = "{range} {rights} 00000000 fd:00 1234                       {path}\n"
SIZES = "Size:  64 kB\nRss:  {resident} kB\nPss:  8 kB\nAnonymous:  {anonymous} kB\nSwap: 0 kB\nVmFlags: rd ex mr\n"


def mapping(
    start: int, *, rights: str = "r-xp", path: str = "/usr/lib/a b.so", resident: int = 32, anonymous: int = 0
) -> str:
    place = f"{start:012x}-{start + 65536:012x}"
    return HEADER.format(range=place, rights=rights, path=path) + SIZES.format(resident=resident, anonymous=anonymous)


def test_code_and_constants_as_they_are_in_their_file_can_be_let_go() -> None:
    smaps = mapping(0x7F0000000000) + mapping(0x7F0000100000, rights="r--p", resident=8)
    assert list(_clean_mappings(smaps)) == [(0x7F0000000000, 65536, 32 * 1024), (0x7F0000100000, 65536, 8 * 1024)]


@pytest.mark.parametrize(
    "kept",
    [
        mapping(0x1000, anonymous=4),  # a page that was altered: a relocation, a breakpoint
        mapping(0x1000, rights="rw-p"),
        mapping(0x1000, rights="r--s"),
        mapping(0x1000, rights="rwxp"),
        mapping(0x1000, path="[vdso]"),
        mapping(0x1000, path=""),
        mapping(0x1000, resident=0),
        mapping(0x1000, rights="r--p", path="/var/cache/data"),  # no part of it is code
    ],
)
def test_nothing_else_is_touched(kept: str) -> None:
    assert list(_clean_mappings(kept)) == []
    assert list(_clean_mappings(kept + mapping(0xA00000) + kept)) == [(0xA00000, 65536, 32 * 1024)]


LIVE = """
import numpy as np
import mobile_sdk.cli
from mobile_sdk.system.memory import release_code

def resident():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("RssFile")) * 1024

before = resident()
released = release_code()
after = resident()
assert released > 5e6, released
assert after < before - released / 2, (before, released, after)
a = np.random.default_rng(0).normal(size=(50, 50))
assert np.allclose(np.linalg.inv(a) @ a, np.eye(50))
import json, zipfile, decimal
assert json.loads(json.dumps([1.5])) == [1.5]
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what is mapped")
def test_a_process_goes_on_without_the_code_that_it_let_go() -> None:
    done = subprocess.run([sys.executable, "-c", LIVE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_garbage_is_looked_for_unless_that_would_take_too_long() -> None:
    """What only each other hold goes with a thorough release and stays with a quick one."""

    class Held:
        pass

    one = Held()
    one.itself = one  # type: ignore[attr-defined]
    gone = weakref.ref(one)
    gc.disable()
    try:
        del one
        release_memory(garbage=False)
        assert gone() is not None
        release_memory()
        assert gone() is None
    finally:
        gc.enable()
