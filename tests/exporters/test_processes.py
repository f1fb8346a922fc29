"""Work in processes of their own: whatever becomes of them, nobody waits for them for ever."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import pytest

from exporters.processes import Workers

PATIENCE = 60.0


def length(context: bytes, item: int) -> int:
    """What a worker does here; importable, as workers need it."""
    return len(context) + item


def spawned() -> set[int]:
    """Workers that this process has spawned."""
    found = set()
    for children in Path("/proc/self/task").glob("*/children"):
        for child in children.read_text().split():
            with contextlib.suppress(OSError):
                if "spawn_main" in Path(f"/proc/{child}/cmdline").read_text():
                    found.add(int(child))
    return found


def test_every_item_is_worked_through_with_the_same_context() -> None:
    results = dict(
        Workers(2, start_up_seconds=0).map(length, b"x" * 1_000_000, {number: number for number in range(6)})
    )
    assert results == {number: 1_000_000 + number for number in range(6)}


def process(context: dict[int, float], item: int) -> int:
    """Which process worked on it, for so many seconds of the context."""
    time.sleep(context[item])  # the work itself: its length is what counts
    return os.getpid()


def test_other_processes_are_started_only_when_they_save_more_time_than_they_take_to_start() -> None:
    items = {number: number for number in range(5)}
    quick = dict.fromkeys(items, 0.001)
    here = {os.getpid()}
    assert set(dict(Workers(4, start_up_seconds=1).map(process, quick, items)).values()) == here
    assert set(dict(Workers(1, start_up_seconds=0).map(process, quick, items)).values()) == here
    # Four are left, of 0.1 s each by what the first took: two processes save 0.2 s.
    slow = dict(Workers(2, start_up_seconds=0.15).map(process, quick | {0: 0.1}, items))
    assert slow.pop(0) == os.getpid()
    assert not here & set(slow.values())
    assert set(dict(Workers(2, start_up_seconds=0.5).map(process, quick | {0: 0.1}, items)).values()) == here


# Python's own pool counts its processes while another thread adds one: the error is in a thread that has done its work.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_workers_that_are_killed_before_they_have_read_their_data_hold_nobody_up() -> None:
    """As by Ctrl-C, which the terminal sends to all processes at once."""
    before, ended = spawned(), list[Any]()

    def work() -> None:
        try:
            list(Workers(2, start_up_seconds=0).map(length, b"x" * 1_000_000, {number: number for number in range(6)}))
        except BrokenProcessPool as error:
            ended.append(error)

    working = threading.Thread(target=work, daemon=True)
    working.start()
    deadline = time.monotonic() + PATIENCE
    while len(workers := spawned() - before) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.001)  # another process's birth: there is nothing to await
    time.sleep(0.003)  # the pool has noted it, and it is far from reading
    for pid in workers:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    working.join(PATIENCE)
    assert not working.is_alive(), "it waits for a process that is gone"
    assert len(ended) == 1
