"""What a planning process says of how far it is, on its way to the process that waits for it."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.context import SpawnContext
from typing import Any, Protocol

__all__ = ["Sender", "hear_workers", "say_now_and_then", "speak_through"]

# How often a search says how far it is.
SECONDS = 5.0


class Sender(Protocol):
    """The end of a pipe that is written to: Windows has another class for it than other systems."""

    def send(self, obj: Any, /) -> None:
        """Pass an object on."""


# In a worker: where it speaks; empty in a process that nobody listens to.
_said: list[Sender] = []


@contextlib.contextmanager
def hear_workers(context: SpawnContext, progress: Callable[[str], None]) -> Iterator[Sender]:
    """
    The end of a pipe for a worker; the workers must have ended before the context does.

    Args:
        context: starts the workers.
        progress: called, in a thread, with each sentence that comes.

    """
    receiver, sender = context.Pipe(duplex=False)

    def listen() -> None:
        with contextlib.suppress(EOFError, OSError), receiver:
            while True:
                progress(receiver.recv())

    thread = threading.Thread(target=listen, name="planning-progress", daemon=True)
    thread.start()
    try:
        yield sender
    finally:
        sender.close()
        thread.join()


def speak_through(said: Sender) -> None:
    """In a worker: what it says goes to ``said``."""
    _said.append(said)


def say_now_and_then(now: Callable[[], float] = time.monotonic) -> Callable[[str], None]:
    """In a worker: a function that passes a sentence on, if some seconds have gone by since the last one."""
    last = now()

    def say(text: str) -> None:
        nonlocal last
        if _said and now() - last >= SECONDS:
            last = now()
            _said[-1].send(text)

    return say
