"""Programs whose bytes are damaged, with hashes that fit: what the native runtime makes of them."""

from __future__ import annotations

import collections
import faulthandler
import os
import signal
from pathlib import Path

import numpy as np
import pytest

from mobile_sdk import load_engine
from mobile_sdk.errors import ProgramError

from . import native_program as sample

PROGRAMS = 300
SECONDS = 30


@pytest.mark.full
def test_damaged_programs_are_refused_or_run_and_executorch_never_aborts(tmp_path: Path) -> None:
    """Each runs in a process of its own: a few fault in code that verifies nothing, which no caller can prevent."""
    content = sample.program_bytes()
    rng = np.random.default_rng(0)
    ends: collections.Counter[str] = collections.Counter()
    for number in range(PROGRAMS):
        damaged = bytearray(content)
        at = int(rng.integers(len(content)))
        if number % 2:
            damaged[at] ^= 1 << int(rng.integers(8))
        else:
            damaged[at : at + 4] = rng.bytes(len(damaged[at : at + 4]))
        ends[_end(sample.write(tmp_path / str(number), bytes(damaged), sample.manifest_for(bytes(damaged))))] += 1
    print(dict(ends))
    assert ends["SIGABRT"] == 0
    assert ends["refused"] > PROGRAMS / 4
    assert ends["refused"] + ends["ran"] >= 0.97 * PROGRAMS


def _end(folder: Path) -> str:
    """How a process that trains a step with the program ends."""
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        faulthandler.disable()  # those that fault are counted, not shown
        signal.alarm(SECONDS)
        try:
            engine = load_engine(folder)
            x, y, sample_weight, weights = sample.example()
            engine.train_step(x, y, sample_weight, weights)
        except ProgramError:
            os._exit(1)
        except BaseException:
            os._exit(2)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return signal.Signals(os.WTERMSIG(status)).name
    return ("ran", "refused", "another exception")[os.WEXITSTATUS(status)]
