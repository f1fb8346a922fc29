"""A TCP proxy that cuts, delays, flips bits and falls silent."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import random
from typing import Literal

__all__ = ["Proxy"]

Fault = Literal["none", "cut", "delay", "flip", "silent"]

# How often a connection has which fault: most must do some work.
_FAULTS: dict[Fault, int] = {"none": 40, "cut": 20, "delay": 20, "flip": 15, "silent": 5}
_CHUNK = 16_384
_SILENT_SECONDS = 20.0
_MOST_DELAY_SECONDS = 0.3


class Proxy:
    """
    Passes connections on to a port of this machine.

    Args:
        port: where the coordinator listens.
        rng: draws the faults.

    """

    def __init__(self, port: int, rng: random.Random) -> None:
        self.faulty = True
        self.faults: collections.Counter[str] = collections.Counter()
        self._target = port
        self._rng = rng
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Task[None]] = set()

    async def start(self) -> int:
        """Listen; returns the port."""
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", 0)
        return int(self._server.sockets[0].getsockname()[1])

    async def heal(self) -> None:
        """No more faults; connections that have one are cut."""
        self.faulty = False
        await self._cut_all()

    async def close(self) -> None:
        """Stop listening, and cut what is open."""
        if self._server is not None:
            self._server.close()
        await self._cut_all()

    async def _cut_all(self) -> None:
        for task in list(self._open):
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            await self._pass_on(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._open.discard(task)
            _abort(writer)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        fault: Fault = self._rng.choices(list(_FAULTS), list(_FAULTS.values()))[0] if self.faulty else "none"
        self.faults[fault] += 1
        there, back = await asyncio.open_connection("127.0.0.1", self._target)
        # Both directions have the fault, each at its own place: early ones hit the handshake, late ones a transfer.
        places = [int(self._rng.expovariate(1 / 60_000)) for _ in range(2)]
        pumps = [
            asyncio.create_task(self._pump(reader, back, fault, places[0])),
            asyncio.create_task(self._pump(there, writer, fault, places[1])),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            _abort(back)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, fault: Fault, place: int) -> None:
        """Copy until the end, or until ``fault`` at the byte ``place``."""
        passed = 0
        while data := await source.read(_CHUNK):
            here = place - passed
            if fault == "delay":
                await asyncio.sleep(self._rng.uniform(0, _MOST_DELAY_SECONDS))
            elif 0 <= here < len(data):
                if fault == "cut":
                    sink.write(data[:here])
                    await sink.drain()
                    return
                if fault == "silent":
                    await asyncio.sleep(_SILENT_SECONDS)
                    return
                if fault == "flip":
                    changed = bytearray(data)
                    changed[here] ^= 1 << self._rng.randrange(8)
                    data = bytes(changed)
            passed += len(data)
            sink.write(data)
            await sink.drain()


def _abort(writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError, RuntimeError):
        writer.transport.abort()
