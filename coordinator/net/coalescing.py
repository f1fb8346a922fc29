"""Coalesce writes: frames written in one event-loop iteration leave in one system call, which costs most."""

from __future__ import annotations

import asyncio
from typing import Any

from .traffic import Traffic

__all__ = ["coalesce_writes"]

# Longer frames go at once: to put them together would copy them.
LONG_BYTES = 65_536


class _Gathered:
    """Stands in for a transport."""

    def __init__(self, transport: asyncio.Transport, traffic: Traffic) -> None:
        self._transport = transport
        self._traffic = traffic
        self._loop = asyncio.get_running_loop()
        self._pieces: list[bytes] = []

    def write(self, data: bytes) -> None:
        self._traffic.down += len(data)
        if not self._pieces:
            if len(data) >= LONG_BYTES:
                self._transport.write(data)
                return
            self._loop.call_soon(self._flush)
        self._pieces.append(data)

    def _flush(self) -> None:
        pieces, self._pieces = self._pieces, []
        if pieces and not self._transport.is_closing():  # uvloop's raises
            self._transport.write(pieces[0] if len(pieces) == 1 else b"".join(pieces))

    # What ends the writing: nothing that was written before it is lost.

    def write_eof(self) -> None:
        self._flush()
        self._transport.write_eof()

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def get_write_buffer_size(self) -> int:
        return self._transport.get_write_buffer_size()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


def coalesce_writes(transport: asyncio.Transport, traffic: Traffic) -> asyncio.Transport:
    """``transport``, with what is written to it counted and put together until the event loop's next turn."""
    stand_in: Any = _Gathered(transport, traffic)
    return stand_in  # type: ignore[no-any-return]
