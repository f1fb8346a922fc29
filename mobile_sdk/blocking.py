"""
The client for apps that are not written with asyncio: the same client in a thread with an event loop of its own.

Android services and graphical apps call :meth:`BlockingClient.start` with a function and go on; scripts use
:meth:`BlockingClient.events` or :meth:`BlockingClient.run` and wait.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .client import Client, arguments_of
from .events import Event, RunFinished
from .invite import Invite
from .manifest import InputContract, Manifest
from .participation.visit import Listener

__all__ = ["BlockingClient"]


class BlockingClient:
    """
    A :class:`~mobile_sdk.client.Client` without asyncio; takes the same arguments and raises the same errors.

    All methods may be called from any thread. A client runs once at a time; it can be started again after it ended.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._client = Client(*args, **kwargs)
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[RunFinished] | None = None
        self._lock = threading.Lock()
        self._cancelled = False
        self._ended = threading.Event()
        self._result: RunFinished | None = None
        self._error: BaseException | None = None

    @classmethod
    def from_invite(cls, link: str | Invite, *, dataset: Any, storage: str | Path, **options: Any) -> BlockingClient:
        """See :meth:`Client.from_invite`."""
        return cls(**arguments_of(link, options), dataset=dataset, storage=storage)

    @property
    def device(self) -> str:
        """See :attr:`Client.device`."""
        return self._client.device

    @property
    def manifest(self) -> Manifest:
        """See :attr:`Client.manifest`."""
        return self._client.manifest

    @property
    def contract(self) -> InputContract:
        """See :attr:`Client.contract`."""
        return self._client.contract

    @property
    def running(self) -> bool:
        """Whether it takes part just now."""
        return self._thread is not None and not self._ended.is_set()

    def check(self, dataset: Any) -> None:
        """See :meth:`Client.check`."""
        self._client.check(dataset)

    def predict(self, x: Any) -> npt.NDArray[np.float32]:
        """See :meth:`Client.predict`."""
        return self._client.predict(x)

    def start(self, listener: Listener = lambda event: None) -> None:
        """
        Take part in a thread of its own and return at once.

        Args:
            listener: called with every event, in that thread; must not block for long. What it raises ends the run.

        Raises:
            RuntimeError: if it is running.

        """
        with self._lock:
            if self.running:
                raise RuntimeError("the client is running; cancel it first")
            self._cancelled = False
            self._result = self._error = None
            self._ended.clear()
            # A daemon: an app that exits without a word must not hang on it; what is on disk is whole at any instant.
            self._thread = threading.Thread(target=self._main, args=(listener,), name="ftte-client", daemon=True)
            self._thread.start()

    def run(self, listener: Listener = lambda event: None) -> RunFinished | None:
        """Take part until the run has ended; none if it was cancelled. Raises what :meth:`Client.run` raises."""
        self.start(listener)
        return self.wait()

    def events(self) -> Iterator[Event]:
        """Take part, telling what happens; ends with the run or when cancelled. Leaving the loop cancels it."""
        told: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self.start(told.put)

        def close() -> None:
            self._ended.wait()
            told.put(None)

        threading.Thread(target=close, daemon=True).start()
        try:
            while (event := told.get()) is not None:
                yield event
            self.wait()
        finally:
            self.cancel()

    def wait(self, timeout: float | None = None) -> RunFinished | None:
        """
        Wait for the end.

        Args:
            timeout: in seconds.

        Returns:
            How the run ended; none if the client was cancelled.

        Raises:
            TimeoutError: if it is still running after ``timeout``.
            FtteError: what :meth:`Client.run` raised.
            RuntimeError: if the client was never started.

        """
        if self._thread is None:
            raise RuntimeError("the client was not started")
        if not self._ended.wait(timeout):
            raise TimeoutError(f"the client still runs after {timeout:g} s")
        if self._error is not None:
            raise self._error
        return self._result

    def cancel(self) -> None:
        """Stop after the training step that is under way; returns when it has stopped. Does nothing if it has."""
        with self._lock:
            self._cancelled = True
            if self._loop is not None and self._task is not None:
                self._loop.call_soon_threadsafe(self._task.cancel)
        # The listener may cancel, too: its own thread cannot wait for itself.
        if self._thread is not None and self._thread is not threading.current_thread():
            self._ended.wait()

    def close(self) -> None:
        """Stop, free the engine and let another process use the storage."""
        self.cancel()
        self._client.close()

    def __enter__(self) -> BlockingClient:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _main(self, listener: Listener) -> None:
        try:
            self._result = asyncio.run(self._run(listener))
        except asyncio.CancelledError:
            pass
        except BaseException as error:
            self._error = error
        finally:
            with self._lock:
                self._loop = self._task = None
            self._ended.set()

    async def _run(self, listener: Listener) -> RunFinished:
        task = asyncio.create_task(self._client.run(listener))
        with self._lock:
            self._loop, self._task = asyncio.get_running_loop(), task
            if self._cancelled:
                task.cancel()
        return await task
