"""A terminal's Ctrl-C ends whoever was started in it, and not what that one started for itself."""

from __future__ import annotations

import os
import signal
import sys
from multiprocessing.connection import Connection

import pytest

from mobile_sdk.system.spawning import SPAWN

if sys.platform == "win32":
    pytest.skip("Windows has no SIGINT for processes", allow_module_level=True)


def answer(pipe: Connection) -> None:
    """What the process does here; importable, as it needs it."""
    pipe.send("still here")


def test_ctrl_c_does_not_reach_a_process_even_while_it_loads() -> None:
    ours, theirs = SPAWN.Pipe()
    process = SPAWN.Process(target=answer, args=(theirs,))
    process.start()
    theirs.close()
    assert process.pid is not None
    os.kill(process.pid, signal.SIGINT)  # it has not even loaded Python
    assert ours.recv() == "still here"
    process.join()
    assert process.exitcode == 0
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ()), "this process hears it as before"
