"""Processes of one's own: a terminal's Ctrl-C does not reach them, and none outlives the one that started it."""

from __future__ import annotations

import os
import signal
import sys
import threading
from multiprocessing import parent_process, resource_tracker
from multiprocessing.context import SpawnContext, SpawnProcess

__all__ = ["SPAWN"]


class _SpawnProcess(SpawnProcess):
    """
    Begins with SIGINT blocked, as do those that it starts.

    A terminal sends it to all processes at once. One that ignored it from its own first line on would print a traceback
    while Python and what it runs are still loaded, which takes seconds.
    """

    def start(self) -> None:
        if sys.platform == "win32":  # a process has no mask of signals there
            super().start()
            return
        resource_tracker.ensure_running()  # where `start` does that, it unblocks SIGINT
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # of this thread, which the process inherits
        try:
            super().start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def run(self) -> None:
        # A process that is killed tells nobody; one that works for it would go on for ever, or wait for more.
        threading.Thread(target=_end_with_parent, name="ends with its parent", daemon=True).start()
        super().run()


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


class _Spawn(SpawnContext):
    Process = _SpawnProcess


# New processes, and not forks: neither torch nor threads survive a fork.
SPAWN = _Spawn()
