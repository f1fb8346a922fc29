"""Server-sent events: what a page is told while it is open, and what it catches up with when it comes back."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import socket
import struct
from collections.abc import AsyncGenerator, Sequence

from aiohttp import web

from ..runs.served_run import ServedRun
from ..runs.service import Service
from ..store.records import TripRecord
from .feed import Feed
from .happenings import Cursor
from .looks import RECENT_TRIPS, run_card
from .protection import SECRET
from .sessions import Sessions
from .trips import rate_per_minute

__all__ = ["Streams"]

# Something is said so often at the least: a page that hears nothing for longer has lost its connection.
BEAT_SECONDS = 10.0

# A page that takes nothing for so long is let go.
WRITE_SECONDS = 10.0

# The list of runs is looked at so often.
LIST_SECONDS = 1.0

# The runs' rates are looked up with each fifth look.
RATE_LOOKS = 5

MOST_PAGES = 100

# How soon a browser comes back.
RETRY = b"retry: 1500\n\n"


class Streams:
    """
    The open pages.

    Args:
        service: the runs.
        sessions: who is logged in: a page whose session has ended is told nothing more.

    """

    def __init__(self, service: Service, sessions: Sessions) -> None:
        self._service = service
        self._sessions = sessions
        self._feeds: dict[str, Feed] = {}
        self._open: set[asyncio.Task[None]] = set()

    def add_to(self, router: web.UrlDispatcher) -> None:
        """Register every path."""
        router.add_get("/api/events", self._list_events)
        router.add_get("/api/runs/{run}/events", self._run_events)

    async def close(self) -> None:
        """Let all pages go."""
        for task in list(self._open):
            task.cancel()

    def _feed(self, running: ServedRun) -> Feed:
        feed = self._feeds.get(running.name)
        if feed is None or not feed.shows(running):
            feed = self._feeds[running.name] = Feed(running)
        return feed

    async def _list_events(self, request: web.Request) -> web.StreamResponse:
        return await self._send(request, self._lists())

    async def _lists(self) -> AsyncGenerator[bytes, None]:
        before, quiet = "", 0.0
        rates: dict[str, float] = {}
        for look in itertools.count():
            served = list(self._service.runs.values())
            if look % RATE_LOOKS == 0:
                rates = {running.name: await _rate(running) for running in served}
            runs = [run_card(running) | {"rate": rates.get(running.name, 0.0)} for running in served]
            text = json.dumps({"runs": runs}, separators=(",", ":"))
            if text != before:
                before, quiet = text, 0.0
                yield _event("look", text)
            elif quiet >= BEAT_SECONDS:
                quiet = 0.0
                yield _event("beat", "{}")
            await asyncio.sleep(LIST_SECONDS)
            quiet += LIST_SECONDS

    async def _run_events(self, request: web.Request) -> web.StreamResponse:
        running = self._service.runs.get(request.match_info["run"])
        if running is None:
            return web.json_response({"error": "there is no such run"}, status=404)
        given = request.headers.get("Last-Event-ID") or request.query.get("after", "")
        return await self._send(request, self._looks(self._feed(running), Cursor.parse(given) or Cursor()))

    async def _looks(self, feed: Feed, cursor: Cursor) -> AsyncGenerator[bytes, None]:
        async with feed.reading():
            seen = 0
            while True:
                look = await feed.next(seen, BEAT_SECONDS)
                if look is None:
                    yield _event("beat", "{}")
                    continue
                seen = look.number
                message = await feed.message(cursor, look)
                cursor = message.cursor
                yield _event("look", message.text, str(cursor))

    async def _send(self, request: web.Request, events: AsyncGenerator[bytes, None]) -> web.StreamResponse:
        if len(self._open) >= MOST_PAGES:
            return web.json_response({"error": f"{MOST_PAGES} pages are open already: close some"}, status=503)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"})
        await response.prepare(request)
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            await response.write(RETRY)
            async with contextlib.aclosing(events) as each:
                async for event in each:
                    if self._sessions.find(request[SECRET]) is None:
                        await response.write(_event("expired", "{}"))
                        break
                    async with asyncio.timeout(WRITE_SECONDS):
                        await response.write(event)
        except (TimeoutError, ConnectionError):
            if request.transport is not None:
                _let_go(request.transport)
        finally:
            self._open.discard(task)
        return response


async def _rate(running: ServedRun) -> float:
    """Accepted updates per minute."""
    run, store = running.coordinator.state, running.store
    trips: Sequence[TripRecord] = await run.offload(lambda: store.updates.trips(RECENT_TRIPS))
    return rate_per_minute(trips, RECENT_TRIPS, run.clock.wall())


def _let_go(transport: asyncio.Transport) -> None:
    """Reset a connection: what its reader has not taken would else stay in the system's memory for minutes."""
    connected = transport.get_extra_info("socket")
    if connected is not None:
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


def _event(name: str, text: str, identity: str = "") -> bytes:
    head = f"id: {identity}\n" if identity else ""
    return f"{head}event: {name}\ndata: {text}\n\n".encode()
