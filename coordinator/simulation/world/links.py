"""
Links in memory, in the place of WebSockets: bandwidth, latency, jitter, loss, and links that break.

A link is what TCP makes of the network: ordered and reliable while it lasts. A lost segment is sent again, which takes
its bandwidth and a time-out. Bytes are those that the coordinator's WebSocket would count: handshake, frame headers,
masks, keepalive and closing included; segments that TCP repeats are not, as it does not see them.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import dataclasses
import functools
from collections.abc import AsyncIterator, Callable
from typing import Any

import numpy as np
from websockets.client import ClientProtocol
from websockets.http11 import SERVER, USER_AGENT
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from mobile_sdk.net.connection import CLOSE_SECONDS, SEND_SECONDS, WEBSOCKET_LIMITS, Connect, Connection, ConnectionLost

from ...net.traffic import Traffic

__all__ = ["LinkProfile", "Network", "SimulatedConnection", "frame_bytes"]

# TCP's payload per segment on the internet, and what it waits for an acknowledgement at the least (RFC 6298, Linux).
SEGMENT_BYTES = 1400
RETRANSMISSION_SECONDS = 0.2

# What a sender may have under way before it has to wait: the socket's buffer.
SEND_BUFFER_BYTES = 64 * 1024

KEEPALIVE_SECONDS = float(WEBSOCKET_LIMITS["ping_interval"])
# A peer that has vanished is noticed when a ping stays unanswered.
SILENCE_SECONDS = KEEPALIVE_SECONDS + float(WEBSOCKET_LIMITS["ping_timeout"])

_MASK_BYTES = 4
_PING_BYTES = 4  # payload of the library's pings


@dataclasses.dataclass(frozen=True)
class LinkProfile:
    """
    What a device's link is like.

    Args:
        up: bytes per second from the device.
        down: bytes per second to the device.
        latency: seconds that a frame travels, one way.
        jitter: standard deviation of the normal whose absolute value is added to the latency of each frame, in seconds.
        loss: fraction of the segments that are lost and sent again.

    """

    up: float = 1e6
    down: float = 1e6
    latency: float = 0.03
    jitter: float = 0.0
    loss: float = 0.0


def frame_bytes(frame: str | bytes, *, masked: bool) -> int:
    """What a frame takes on the wire: RFC 6455's header, the mask of those from a client, and the payload."""
    size = len(frame.encode()) if isinstance(frame, str) else len(frame)
    header = 2 if size < 126 else 4 if size < 65536 else 10
    return header + (_MASK_BYTES if masked else 0) + size


@functools.cache
def _handshake_bytes(url: str) -> tuple[int, int]:
    """(up, down): the HTTP request and its answer, as the library writes them."""
    client = ClientProtocol(parse_uri(url))
    request = client.connect()
    request.headers["User-Agent"] = USER_AGENT
    response = ServerProtocol().accept(request)
    response.headers["Server"] = SERVER
    return len(request.serialize()), len(response.serialize())


class _Direction:
    """One way of a link: frames leave one after another and arrive in that order."""

    def __init__(self, bytes_per_second: float, profile: LinkProfile, rng: np.random.Generator, *, masked: bool):
        self._loop = asyncio.get_running_loop()
        self._rate = bytes_per_second
        self._profile = profile
        self._rng = rng
        self._masked = masked
        self._free = 0.0  # when the last frame will have left
        self._last = 0.0  # when it will have arrived
        self._under_way: collections.deque[Callable[[], None]] = collections.deque()
        self.broken = False
        self.repeated_bytes = 0

    def wire_bytes(self, frame: str | bytes) -> int:
        return frame_bytes(frame, masked=self._masked)

    def put(self, size: int, arrived: Callable[[], None]) -> None:
        """Send ``size`` bytes; ``arrived`` is called when they are there, unless the link breaks before."""
        profile = self._profile
        delay = profile.latency
        if profile.jitter > 0:
            delay += abs(float(self._rng.normal(0.0, profile.jitter)))
        occupied = size
        if profile.loss > 0:
            lost = int(self._rng.binomial(-(-size // SEGMENT_BYTES), profile.loss))
            if lost:
                repeated = min(lost * SEGMENT_BYTES, size)
                self.repeated_bytes += repeated
                occupied += repeated
                delay += max(RETRANSMISSION_SECONDS, 2 * profile.latency)
        self._free = max(self._free, self._loop.time()) + occupied / self._rate
        self._last = max(self._free + delay, self._last)
        self._under_way.append(arrived)
        self._loop.call_at(self._last, self._arrive)

    def _arrive(self) -> None:
        # The next in line, whichever timer this is: timers of the same instant fire in any order.
        arrived = self._under_way.popleft()
        if not self.broken:
            arrived()

    def congested(self) -> float:
        """Seconds until there is room for another frame."""
        return self._free - self._loop.time() - SEND_BUFFER_BYTES / self._rate


class SimulatedConnection:
    """One end of a link: a :class:`~mobile_sdk.net.connection.Connection`."""

    def __init__(self, out: _Direction, count: Callable[[int], None], *, count_on_arrival: bool) -> None:
        self._out = out
        self._count = count
        self._count_on_arrival = count_on_arrival
        self._inbox: collections.deque[str | bytes] = collections.deque()
        self._reader: asyncio.Future[None] | None = None
        self._lost: str | None = None
        self._closing = False
        self._closed = asyncio.Event()
        self.peer: SimulatedConnection = self

    @property
    def repeated_bytes(self) -> int:
        """What TCP had to send twice."""
        return self._out.repeated_bytes

    async def send(self, frame: str | bytes) -> None:
        self._check()
        self._put(self._out.wire_bytes(frame), lambda: self.peer._take(frame))
        wait = self._out.congested()
        if wait > 0:
            await asyncio.sleep(min(wait, SEND_SECONDS))
            self._check()
            if wait > SEND_SECONDS:
                self.lose(f"the peer took nothing for {SEND_SECONDS:g} s")
                self._check()

    async def receive(self) -> str | bytes:
        while not self._inbox:
            self._check()
            self._reader = asyncio.get_running_loop().create_future()
            await self._reader
        return self._inbox.popleft()

    async def close(self, reason: str = "") -> None:
        if self._closing or self._lost is not None:
            return
        self._closing = True
        text = reason.encode(errors="replace")[:120].decode(errors="ignore")
        self._put(self._farewell(text), lambda: self.peer._answer_close(text))
        self._lost = f"the connection was closed: {text or 1000}"
        self._wake()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._closed.wait()

    def lose(self, reason: str) -> None:
        """Notice that the link is gone."""
        if self._lost is None:
            self._lost = reason
        self._closed.set()
        self._wake()

    def _check(self) -> None:
        if self._lost is not None:
            raise ConnectionLost(self._lost)

    def _put(self, size: int, arrived: Callable[[], None]) -> None:
        if not self._count_on_arrival:
            self._count(size)
            self._out.put(size, arrived)
            return

        def counted() -> None:
            self._count(size)
            arrived()

        self._out.put(size, counted)

    def _farewell(self, text: str) -> int:
        return self._out.wire_bytes(b"\0\0" + text.encode())

    def _take(self, frame: str | bytes) -> None:
        self._inbox.append(frame)
        self._wake()

    def _answer_close(self, text: str) -> None:
        """The peer closes: what it sent before can still be read, and its farewell is echoed."""
        if self._lost is None:
            self._put(self._farewell(text), self.peer._closed.set)
        else:
            self.peer._closed.set()
        self.lose(f"the connection was closed: {text or 1000}")

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)


class _Link:
    """Both ends, and their bytes."""

    def __init__(self, url: str, profile: LinkProfile, rng: np.random.Generator) -> None:
        self._loop = asyncio.get_running_loop()
        self.traffic = Traffic()
        self._up = _Direction(profile.up, profile, rng, masked=True)
        self._down = _Direction(profile.down, profile, rng, masked=False)
        # As the coordinator's socket counts them: what it wrote, and what has come.
        self.device = SimulatedConnection(self._up, self._count_up, count_on_arrival=True)
        self.coordinator = SimulatedConnection(self._down, self._count_down, count_on_arrival=False)
        self.device.peer, self.coordinator.peer = self.coordinator, self.device
        up, down = _handshake_bytes(url)
        self.traffic.up += up
        self.traffic.down += down
        self._pinged = self._loop.time()
        self.open = True

    @property
    def repeated_bytes(self) -> int:
        return self._up.repeated_bytes + self._down.repeated_bytes

    def settle(self) -> None:
        """Count the pings and pongs of both sides until now; a timer for each would be most of a day's events."""
        if not self.open:
            return
        pings = int((self._loop.time() - self._pinged) // KEEPALIVE_SECONDS)
        self._pinged += pings * KEEPALIVE_SECONDS
        self.traffic.up += 2 * pings * frame_bytes(b"\0" * _PING_BYTES, masked=True)
        self.traffic.down += 2 * pings * frame_bytes(b"\0" * _PING_BYTES, masked=False)

    def snap(self, reason: str) -> None:
        """The network is gone: what is under way is lost; the device knows at once, the coordinator by its pings."""
        self.settle()
        self.open = False
        self._up.broken = self._down.broken = True
        self.device.lose(reason)
        self._loop.call_later(SILENCE_SECONDS, self.coordinator.lose, "keepalive ping timeout")

    def _count_up(self, size: int) -> None:
        self.traffic.up += size

    def _count_down(self, size: int) -> None:
        self.traffic.down += size


# Serves one device: the coordinator's own function.
Serve = Callable[[Connection, Traffic], Any]


class Network:
    """
    Where devices reach the coordinator.

    Args:
        serve: ``await serve(connection, traffic)`` for each connection, until it ends.
        url: the address that devices would use; part of the handshake's bytes.

    """

    def __init__(self, serve: Serve, url: str = "ws://127.0.0.1:8765") -> None:
        self._serve = serve
        self._url = url
        self._links: dict[str, _Link] = {}
        self._ended = Traffic()
        self._repeated = 0
        self._serving: set[asyncio.Task[None]] = set()

    @property
    def repeated_bytes(self) -> int:
        """What TCP had to send twice, over all links."""
        return self._repeated + sum(link.repeated_bytes for link in self._links.values())

    def traffic(self) -> Traffic:
        """All bytes of all links until now."""
        self.settle()
        links = self._links.values()
        return Traffic(
            self._ended.up + sum(link.traffic.up for link in links),
            self._ended.down + sum(link.traffic.down for link in links),
        )

    def connect(
        self, name: str, profile: LinkProfile, rng: np.random.Generator, reachable: Callable[[], bool]
    ) -> Connect:
        """
        How the device ``name`` opens its link; ``reachable`` says whether there is a network now.

        Args:
            name: of the device.
            profile: bandwidth, latency, jitter, loss and outages.
            rng: draws them.
            reachable: whether there is a network now.

        """

        @contextlib.asynccontextmanager
        async def open_link() -> AsyncIterator[Connection]:
            if not reachable():
                raise ConnectionLost(f"cannot reach {self._url}: there is no network")
            # TCP's round trip, and that of the upgrade.
            await asyncio.sleep(4 * profile.latency)
            if not reachable():
                raise ConnectionLost(f"cannot reach {self._url}: there is no network")
            link = _Link(self._url, profile, rng)
            self._links[name] = link
            task = asyncio.create_task(self._serve_until_closed(link))
            self._serving.add(task)
            task.add_done_callback(self._serving.discard)
            try:
                yield link.device
            finally:
                # A process that is killed leaves as one that closes: its system ends the connection.
                try:
                    await link.device.close()
                finally:
                    self._end(name, link)

        return open_link

    def snap(self, name: str, reason: str = "the network is gone") -> None:
        """Break a device's link, if it has one."""
        link = self._links.get(name)
        if link is not None:
            link.snap(reason)

    def settle(self) -> None:
        """Bring the byte counts of open links up to date."""
        for link in self._links.values():
            link.settle()

    async def drained(self) -> None:
        """Wait until the coordinator has done with every connection."""
        while self._serving:
            await asyncio.wait(self._serving)

    async def _serve_until_closed(self, link: _Link) -> None:
        try:
            await self._serve(link.coordinator, link.traffic)
        finally:
            await link.coordinator.close()

    def _end(self, name: str, link: _Link) -> None:
        link.settle()
        link.open = False
        if self._links.get(name) is link:
            del self._links[name]
        self._repeated += link.repeated_bytes
        self._ended.up += link.traffic.up
        self._ended.down += link.traffic.down
