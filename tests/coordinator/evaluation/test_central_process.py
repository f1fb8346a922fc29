"""Evaluation in a process of its own: whatever becomes of that process, nobody waits for it for ever."""

from __future__ import annotations

import multiprocessing
import os
import signal
import struct
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from coordinator.evaluation.central_process import EvaluationProcess, SpareProcess, _receive

PATIENCE = 60.0
# More than a pipe holds.
LARGE = b"x" * 1_000_000


def spawned() -> list[int]:
    """Processes that this one has spawned."""
    found = []
    for children in Path("/proc/self/task").glob("*/children"):
        for child in children.read_text().split():
            try:
                if "spawn_main" in Path(f"/proc/{child}/cmdline").read_text():
                    found.append(int(child))
            except OSError:
                continue
    return found


def test_a_process_that_is_killed_before_it_has_read_its_data_holds_nobody_up() -> None:
    """As by Ctrl-C, which the terminal sends to all processes at once."""
    before = set(spawned())
    evaluation = EvaluationProcess(LARGE, LARGE, LARGE)
    evaluation.start()
    deadline = time.monotonic() + PATIENCE
    while not (new := set(spawned()) - before):
        assert time.monotonic() < deadline
        time.sleep(0.001)  # another process's birth: there is nothing to await
    for pid in new:
        os.kill(pid, signal.SIGKILL)
    closing = threading.Thread(target=evaluation.close, daemon=True)
    closing.start()
    closing.join(PATIENCE)
    assert not closing.is_alive(), "it waits for a process that is gone"


def test_nobody_waits_until_the_process_has_loaded_and_whoever_is_closed_starts_none() -> None:
    evaluation = EvaluationProcess(LARGE, LARGE, LARGE)
    with evaluation._lock:  # as while it loads
        evaluation.start()
    evaluation.close()
    evaluation._prepare()
    assert evaluation(np.zeros(1, np.float32)) == {}
    assert evaluation._running is None


def test_the_process_ends_quietly_where_the_coordinator_was_killed_while_it_sent() -> None:
    ours, theirs = multiprocessing.Pipe()
    os.write(ours.fileno(), struct.pack("!i", 1000) + b"the first part")
    ours.close()
    with pytest.raises(EOFError):
        _receive(theirs)
    theirs.close()


def test_a_spare_process_is_the_one_that_evaluates_and_ends_if_it_was_not_needed() -> None:
    before = set(spawned())
    spare = SpareProcess()
    assert spare._spawned is not None
    pid = spare._spawned[0].pid
    assert pid is not None
    evaluation = EvaluationProcess(b"m", b"p", b"s", spare)
    evaluation._prepare()
    assert evaluation._running is not None
    assert evaluation._running[0].pid == pid
    os.kill(pid, signal.SIGKILL)
    evaluation.close()
    unused = SpareProcess()
    EvaluationProcess(b"m", b"p", b"s", unused).close()
    assert unused.take() is None
    assert set(spawned()) == before
