"""A terminal's Ctrl-C ends whoever was started in it, and not what that one started; nobody outlives whoever did."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
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


def test_a_process_ends_with_the_one_that_was_killed_and_so_do_those_that_it_started() -> None:
    program = f"""
        from {__name__} import begin_another
        from mobile_sdk.system.spawning import SPAWN

        if __name__ == "__main__":
            process = SPAWN.Process(target=begin_another)
            process.start()
            process.join()
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "all three are here\n"
        first.kill()
        # The end of the stream: nobody who could write to it is left.
        assert first.communicate(timeout=60)[0] == ""


def begin_another() -> None:
    """The second of three processes."""
    process = SPAWN.Process(target=wait_for_ever)
    process.start()
    process.join()


def wait_for_ever() -> None:
    """The third."""
    print("all three are here", flush=True)
    signal.pause()
