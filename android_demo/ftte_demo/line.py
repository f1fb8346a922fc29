"""
The screens' end of the line to the trainer: JSON, a line a message, over a socket file in the app's own folder.

Reading has a thread; messages wait in a queue until the screens take them, so nothing ever blocks a frame.
"""

from __future__ import annotations

import contextlib
import json
import queue
import socket
import threading
import time
from pathlib import Path
from typing import Any

__all__ = ["SOCKET", "Line"]

# Name of the socket file in the app's folder.
SOCKET = "trainer.sock"
_RETRY_SECONDS = 0.2

Message = dict[str, Any]


class Line:
    """
    Connects to the trainer of ``folder``, again and again until closed.

    What is said while there is no connection waits for the next one.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / SOCKET
        self._received: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._waiting: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._socket: socket.socket | None = None
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._alone_since = time.monotonic()
        self._connected = False
        self._thread = threading.Thread(target=self._run, name="trainer line", daemon=True)
        self._thread.start()

    @property
    def alone_seconds(self) -> float:
        """For how long there has been no connection; 0 while there is one."""
        return 0.0 if self._connected else time.monotonic() - self._alone_since

    def say(self, message: Message) -> None:
        """Send a message, now or when there is a connection."""
        self._waiting.put(message)
        self._flush()

    def received(self) -> list[Message]:
        """What has come since the last call."""
        messages = []
        with contextlib.suppress(queue.Empty):
            while True:
                messages.append(self._received.get_nowait())
        return messages

    def close(self) -> None:
        """Hang up."""
        self._closed.set()
        with self._lock:
            if self._socket is not None:
                self._socket.close()
                self._socket = None

    def _run(self) -> None:
        while not self._closed.is_set():
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
                try:
                    connection.connect(str(self._path))
                except OSError:
                    self._closed.wait(_RETRY_SECONDS)
                    continue
                with self._lock:
                    self._socket = connection
                self._connected = True
                self._flush()
                with contextlib.suppress(OSError, ValueError):
                    for line in connection.makefile("r", encoding="utf-8"):
                        self._received.put(json.loads(line))
                self._alone_since = time.monotonic()
                self._connected = False
                with self._lock:
                    self._socket = None

    def _flush(self) -> None:
        with self._lock:
            while self._socket is not None:
                try:
                    message = self._waiting.get_nowait()
                except queue.Empty:
                    return
                try:
                    self._socket.sendall(json.dumps(message).encode() + b"\n")
                except OSError:
                    self._waiting.put(message)
                    return
