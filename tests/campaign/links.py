"""Links in memory that delay, break, go silent, and change bytes."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import random
from collections.abc import AsyncIterator, Callable
from typing import Any

from coordinator.net.traffic import Traffic
from mobile_sdk.net.connection import Connect, Connection, ConnectionLost

from .machines import Machine

__all__ = ["Network", "Serve"]

# A peer that is gone without a word is noticed after so long: a ping, and the time to answer it.
SILENCE_SECONDS = 40.0

Serve = Callable[[Connection, Traffic], Any]


class _End:
    """One end of a link: a :class:`~mobile_sdk.net.connection.Connection`."""

    def __init__(self, cable: _Cable) -> None:
        self.peer: _End = self
        self._cable = cable
        self._inbox: collections.deque[str | bytes] = collections.deque()
        self._arrived = asyncio.Event()
        self._due = 0.0
        self.lost = ""

    async def send(self, frame: str | bytes) -> None:
        if self.lost:
            raise ConnectionLost(self.lost)
        self._due = self._cable.carry(self, frame, self._due)
        await asyncio.sleep(0)

    async def receive(self) -> str | bytes:
        while not self._inbox:
            if self.lost:
                raise ConnectionLost(self.lost)
            self._arrived.clear()
            await self._arrived.wait()
        return self._inbox.popleft()

    async def close(self, reason: str = "") -> None:
        if not self.lost:
            self.lose(f"closed: {reason}")
            self._cable.carry_end(self, self._due)

    def take(self, frame: str | bytes) -> None:
        """A frame has come."""
        if not self.lost:
            self._inbox.append(frame)
            self._arrived.set()

    def lose(self, reason: str) -> None:
        """Notice that the link is gone."""
        if not self.lost:
            self.lost = reason
            self._arrived.set()


class _Cable:
    """Both directions of one link."""

    def __init__(self, network: Network, device: str, host: str, rng: random.Random) -> None:
        self.host = host
        self.device = _End(self)
        self.coordinator = _End(self)
        self.device.peer, self.coordinator.peer = self.coordinator, self.device
        self.name = device
        self.flips = 0
        self.silent = False
        self.traffic = Traffic()
        self._network = network
        self._rng = rng
        self._loop = asyncio.get_running_loop()

    def carry(self, sender: _End, frame: str | bytes, due: float) -> float:
        """Bring a frame to the other end; gives when it will be there."""
        size = len(frame)
        if sender is self.device:
            self.traffic.up += size
        else:
            self.traffic.down += size
        if self.silent:
            return due
        if self.flips and size > 40 and self._rng.random() < 0.3:
            self.flips -= 1
            frame = _flipped(frame, self._rng)
        due = max(
            due + 1e-6, self._loop.time() + self._network.latency(self.name)
        )  # timers of one instant have no order
        self._loop.call_at(due, self._deliver, sender.peer, frame)
        return due

    def _deliver(self, end: _End, frame: str | bytes) -> None:
        if not self.silent:
            end.take(frame)

    def carry_end(self, sender: _End, due: float) -> None:
        """The other end hears that the link was closed."""
        if not self.silent:
            due = max(
                due + 1e-6, self._loop.time() + self._network.latency(self.name)
            )  # timers of one instant have no order
            self._loop.call_at(due, sender.peer.lose, "the peer closed the connection")

    def cut(self) -> None:
        """Both ends notice at once; what is under way is lost."""
        self.silent = True
        self.device.lose("the connection broke")
        self.coordinator.lose("the connection broke")

    def fall_silent(self) -> None:
        """Nothing comes through any more, which both ends notice late."""
        self.silent = True
        self._loop.call_later(SILENCE_SECONDS, self.device.lose, "no answer to a ping")
        self._loop.call_later(SILENCE_SECONDS * 1.5, self.coordinator.lose, "no answer to a ping")


def _flipped(frame: str | bytes, rng: random.Random) -> str | bytes:
    """One byte is another. Of text, a letter: a changed digit would be a number that the peer could have meant."""
    at = rng.randrange(len(frame))
    if isinstance(frame, bytes):
        return frame[:at] + bytes([frame[at] ^ (1 << rng.randrange(8))]) + frame[at + 1 :]
    letters = [index for index, letter in enumerate(frame) if letter.isalpha()]
    at = rng.choice(letters)
    return frame[:at] + chr(ord(frame[at]) ^ 2) + frame[at + 1 :]


class Network:
    """
    Where devices reach the coordinator.

    Args:
        rng: draws delays and flips.

    ``hosts`` are the processes that serve, by name, with their functions: the coordinator, or its gateways.
    """

    def __init__(self, rng: random.Random) -> None:
        self.hosts: dict[str, tuple[Machine, Serve]] = {}
        self.delay: dict[str, float] = {}
        self.unreachable: set[str] = set()
        self._rng = rng
        self._cables: list[_Cable] = []

    def latency(self, device: str) -> float:
        """Seconds that a frame of this device's travels."""
        return self._rng.uniform(0.005, 0.05) + self.delay.get(device, 0.0) * self._rng.random()

    def connect(self, device: str) -> Connect:
        """How a device opens its link."""

        @contextlib.asynccontextmanager
        async def open_link() -> AsyncIterator[Connection]:
            await asyncio.sleep(2 * self.latency(device))
            if not self.hosts or device in self.unreachable:
                raise ConnectionLost("nobody answers")
            names = sorted(self.hosts)
            host = names[0] if len(names) == 1 else self._rng.choice(names)
            machine, serve = self.hosts[host]
            cable = _Cable(self, device, host, self._rng)
            self._cables = [each for each in self._cables if not (each.device.lost and each.coordinator.lost)]
            self._cables.append(cable)
            machine.start(_serve(serve, cable))
            try:
                yield cable.device
            finally:
                await cable.device.close()

        return open_link

    def of(self, device: str) -> list[_Cable]:
        """The links of a device that are open."""
        return [cable for cable in self._cables if cable.name == device and not cable.device.lost]

    def host_gone(self, host: str, *, silently: bool) -> None:
        """A process that served has ended; its peers hear of it at once, or only by their pings."""
        self.hosts.pop(host, None)
        for cable in self._cables:
            if cable.host == host:
                if silently:
                    cable.fall_silent()
                else:
                    cable.cut()
        self._cables = [cable for cable in self._cables if cable.host != host]

    def device_gone(self, device: str, *, silently: bool) -> None:
        """A device's process has ended."""
        for cable in self.of(device):
            if silently:
                cable.fall_silent()
                cable.device.lose("the machine is off")
            else:
                cable.cut()


async def _serve(serve: Serve, cable: _Cable) -> None:
    try:
        await serve(cable.coordinator, cable.traffic)
    finally:
        await cable.coordinator.close()
