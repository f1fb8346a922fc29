"""
How much of a run's newest versions is one device's: a bound over a window.

A version is a step of length 1, and a device's share of it the part of the example weights that are its own. Over the
last ``WINDOW`` versions no device may have more than ``SHARE`` times an equal part, nor more than half. What is above
that goes to the other devices of the buffer, as far as they are below theirs; what nobody may take makes the step
shorter. So a device that fills buffer after buffer by itself moves the model by less and less until others join in.
"""

from __future__ import annotations

import collections
from collections.abc import Mapping

__all__ = ["SHARE", "WINDOW", "Shares"]

# Versions that are looked back on.
WINDOW = 32

# A device may have so many times an equal part of them, and in any case no more than half.
SHARE = 3.0
MOST = 0.5

WHOLE = 2**53


class Shares:
    """The shares of the last versions, by device, in parts of ``1 / WHOLE``: sums of integers can be gone on with."""

    def __init__(self) -> None:
        self._versions: collections.deque[Mapping[str, int]] = collections.deque()  # one less than the window has
        self._taken: dict[str, int] = {}  # of all of them
        self._count: collections.Counter[str] = collections.Counter()  # in how many of them a device is

    def bound(self, shares: Mapping[str, float], working: int, least: int) -> dict[str, float]:
        """
        What each device may have of the next version; changes nothing here.

        Args:
            shares: of the devices in the buffer, above 0; they sum up to 1.
            working: devices at work, whose updates may come.
            least: with fewer devices than this nothing is bounded.

        Returns:
            By device, 0 to 1; the sum is at most 1, and exactly ``shares`` where nobody has too much.

        """
        taken = self._taken
        devices = max(len(taken) + sum(device not in taken for device in shares), working)
        if devices < least:
            return dict(shares)
        # While the window fills, everybody may have what is theirs of one version for each device.
        allowed = min(SHARE / devices, MOST) * max(len(self._versions) + 1, devices)
        rooms = {device: max(allowed - taken.get(device, 0) / WHOLE, 0.0) for device in sorted(shares)}
        return _fill(shares, rooms)

    def add(self, shares: Mapping[str, float]) -> None:
        """A version was made of these."""
        parts = {device: round(share * WHOLE) for device, share in shares.items()}
        self._versions.append(parts)
        for device, part in parts.items():
            self._taken[device] = self._taken.get(device, 0) + part
            self._count[device] += 1
        if len(self._versions) < WINDOW:
            return
        for device, part in self._versions.popleft().items():
            self._taken[device] -= part
            self._count[device] -= 1
            if self._count[device] == 0:
                del self._taken[device], self._count[device]


def _fill(shares: Mapping[str, float], rooms: Mapping[str, float]) -> dict[str, float]:
    """``shares`` cut to ``rooms``; what is cut off goes to the others in proportion, as far as their rooms allow."""
    given = dict.fromkeys(rooms, 0.0)
    below = sorted(device for device in rooms if shares[device] > 0)
    if all(shares[device] <= rooms[device] for device in below):
        return dict(shares)
    left = 1.0
    while below and left > 0:
        total = sum(shares[device] for device in below)
        full = [device for device in below if left * shares[device] / total >= rooms[device]]
        for device in full or below:
            given[device] = min(left * shares[device] / total, rooms[device])
        if not full:
            break
        left -= sum(given[device] for device in full)
        below = [device for device in below if device not in full]
    return given
