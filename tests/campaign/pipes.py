"""Sockets between processes of one machine, in memory: they delay, break, and tell one side before the other."""

from __future__ import annotations

import asyncio
import contextvars
import errno
import random
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from mobile_sdk.system.sockets import Serve

from .machines import Machine, running

__all__ = ["LocalSockets"]

# A side that hears late of a connection's end hears after so many seconds.
LATE_SECONDS = 25.0


class _Writer:
    """What a :class:`~coordinator.gateway.pipe.Pipe` needs of a stream's writer, and of its transport."""

    def __init__(self, line: _Line, machine: Machine | None) -> None:
        self.transport = self
        self.machine = machine
        self.reader = asyncio.StreamReader()
        self.peer = self
        self._line = line
        self._closing = False

    def set_write_buffer_limits(self, high: int) -> None:
        """Nothing is kept here."""

    def is_closing(self) -> bool:
        return self._closing

    def writelines(self, pieces: Iterable[bytes | memoryview]) -> None:
        if not self._closing and not (self.machine is not None and self.machine.disk.dead):
            self._line.carry(self, b"".join(pieces))

    async def drain(self) -> None:
        if self._closing:
            raise ConnectionResetError("the pipe is broken")

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            self._line.carry(self, b"")

    async def wait_closed(self) -> None:
        """It is."""

    def arrive(self, data: bytes) -> None:
        """Bytes have come, or, without any, the end."""
        if not self.reader.at_eof() and not self.reader._eof:  # type: ignore[attr-defined]
            if data:
                self.reader.feed_data(data)
            else:
                self._closing = True
                self.reader.feed_eof()


class _Line:
    """Both directions of one connection."""

    def __init__(self, sockets: LocalSockets, client: Machine | None, server: Machine) -> None:
        self.client, self.server = _Writer(self, client), _Writer(self, server)
        self.client.peer, self.server.peer = self.server, self.client
        self.broken = False
        self._sockets = sockets
        self._due = {self.client: 0.0, self.server: 0.0}
        self._loop = asyncio.get_running_loop()

    def carry(self, sender: _Writer, data: bytes) -> None:
        """Bring bytes to the other side, in order; what was sent arrives though its sender ends meanwhile."""
        if not self.broken:
            due = self._due[sender] = max(self._due[sender] + 1e-6, self._loop.time() + self._sockets.latency())
            self._loop.call_at(due, self._deliver, sender.peer, data, context=contextvars.Context())

    def _deliver(self, end: _Writer, data: bytes) -> None:
        if not self.broken:
            end.arrive(data)

    def cut(self) -> None:
        """Both sides hear at once; what is under way is lost."""
        self.broken = True
        self.client.arrive(b"")
        self.server.arrive(b"")

    def cut_unevenly(self) -> None:
        """The gateway hears at once, and comes again; the conductor, which has both for a while, hears late."""
        self.broken = True
        self.client.arrive(b"")
        self._loop.call_later(LATE_SECONDS, self.server.arrive, b"", context=contextvars.Context())

    def ended(self, machine: Machine) -> None:
        """A process has ended."""
        for end in (self.client, self.server):
            if end.machine is machine:
                end.close()


class LocalSockets:
    """
    The sockets of one machine.

    Args:
        rng: draws how long messages take.

    ``delay`` is by how many seconds they may take longer.
    """

    def __init__(self, rng: random.Random) -> None:
        self.delay = 0.0
        self._rng = rng
        self._listening: dict[Path, tuple[Serve, Machine]] = {}
        self._lines: list[_Line] = []

    def latency(self) -> float:
        """Seconds that a message takes."""
        return self._rng.uniform(1e-5, 1e-3) + self.delay * self._rng.random()

    async def listen(self, serve: Serve, path: Path) -> _Server:
        """As :func:`~mobile_sdk.system.sockets.listen_locally`."""
        machine = running()
        assert machine is not None
        path.touch()
        self._listening[path] = serve, machine
        return _Server(lambda: self._listening.pop(path, None))

    async def connect(self, path: Path) -> tuple[asyncio.StreamReader, Any]:
        """As :func:`~mobile_sdk.system.sockets.connect_locally`."""
        serve, server = self._listening.get(path, (None, None))
        if serve is None or server is None or server.disk.dead:
            raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")
        line = _Line(self, running(), server)
        self._lines = [each for each in self._lines if not each.broken]
        self._lines.append(line)
        served: Any = serve(line.server.reader, line.server)  # type: ignore[arg-type]
        server.start(served)
        return line.client.reader, line.client

    def of(self, machine: Machine) -> list[_Line]:
        """The connections of a process."""
        return [each for each in self._lines if machine in (each.client.machine, each.server.machine)]

    def process_gone(self, machine: Machine) -> None:
        """A process has ended: its connections are closed, and nobody listens any more."""
        for line in self.of(machine):
            line.ended(machine)
        self._listening = {path: (s, m) for path, (s, m) in self._listening.items() if m is not machine}


class _Server:
    """What listens."""

    def __init__(self, stop: Callable[[], Any]) -> None:
        self._stop = stop

    def close(self) -> None:
        self._stop()
