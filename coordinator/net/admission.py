"""How many may be at the door at once, and how fast one of them may talk."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Sequence

__all__ = ["ConnectionLimits", "GatewayNumbers", "Rate"]

# A few seconds' worth of messages may come at once.
BURST_SECONDS = 4.0


@dataclasses.dataclass(frozen=True)
class GatewayNumbers:
    """What a gateway said last of itself: open connections, those whose peer has not proved itself, processor time."""

    name: str
    open: int
    unproven: int
    cpu_seconds: float


class ConnectionLimits:
    """
    Counts open connections, and those among them whose peer has not proved who it is.

    A peer that connects but never authenticates occupies only unproven slots, which are limited per address.
    Authenticated devices are unaffected.

    Args:
        connections: how many may be open.
        handshakes: how many of them may be unproven.
        per_address: how many of those may come from one address.

    ``shed`` counts connections for which there was no room, ``cut`` those that broke a limit of bytes or frames.
    ``gateways`` are the processes that hold them, where it is not this one.

    """

    def __init__(self, connections: int, handshakes: int, per_address: int) -> None:
        self._connections = connections
        self._handshakes = handshakes
        self._per_address = per_address
        self._unproven: collections.Counter[str] = collections.Counter()
        self.gateways: Sequence[GatewayNumbers] = ()
        self.open = 0
        self.shed = 0
        self.cut = 0

    @property
    def unproven(self) -> int:
        """Open connections whose peer has not proved who it is."""
        return self._unproven.total()

    def enter(self, address: str) -> bool:
        """A connection was made; false if there is no room for it, and it is not counted."""
        full = self.open >= self._connections or self.unproven >= self._handshakes
        if full or self._unproven[address] >= self._per_address:
            self.shed += 1
            return False
        self.open += 1
        self._unproven[address] += 1
        return True

    def prove(self, address: str) -> None:
        """The peer of a connection from ``address`` has proved who it is."""
        self._unproven[address] -= 1
        if self._unproven[address] <= 0:
            del self._unproven[address]

    def leave(self, address: str, *, proven: bool) -> None:
        """A connection that had entered is gone."""
        self.open -= 1
        if not proven:
            self.prove(address)


class Rate:
    """
    A token bucket.

    Args:
        per_second: how many may come in the long run.
        burst_seconds: so many seconds' worth of them may come at once.

    """

    def __init__(self, per_second: float, burst_seconds: float = BURST_SECONDS) -> None:
        self._per_second = per_second
        self._most = per_second * burst_seconds
        self._tokens = self._most
        self._at: float | None = None

    def take(self, now: float) -> bool:
        """Whether one more may come at the monotonic time ``now``."""
        if self._at is not None:
            self._tokens = min(self._tokens + (now - self._at) * self._per_second, self._most)
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
