"""Being told to end: SIGTERM and SIGINT, and Windows' Ctrl-C and Ctrl-Break."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable

__all__ = ["ENDING", "call_at_signal", "call_when_told_to_end"]

if sys.platform == "win32":
    ENDING: tuple[signal.Signals, ...] = (signal.SIGINT, signal.SIGBREAK)
else:
    ENDING = (signal.SIGINT, signal.SIGTERM)


def call_when_told_to_end(loop: asyncio.AbstractEventLoop, callback: Callable[[], object]) -> None:
    """
    Call ``callback`` in the event loop whenever the process is told to end.

    Does nothing in another thread than the main one, where no signal arrives (a service of python-for-android).
    """
    for number in ENDING:
        call_at_signal(loop, number, callback)


def call_at_signal(loop: asyncio.AbstractEventLoop, number: signal.Signals, callback: Callable[[], object]) -> None:
    """
    Call ``callback`` in the event loop at the signal ``number``; nothing happens where no signal arrives.

    Args:
        loop: runs the callback.
        number: of the signal.
        callback: takes nothing; what it returns is ignored.

    """
    try:
        if sys.platform == "win32":  # its event loops take no signals
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(callback))
        else:
            loop.add_signal_handler(number, callback)
    except (RuntimeError, ValueError, OSError):
        return
