"""The state of a device at one moment, and who tells it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

__all__ = ["Conditions", "Provider", "fixed"]


@dataclasses.dataclass(frozen=True)
class Conditions:
    """
    One look at a device; :obj:`None` where it cannot be known, or there is no such thing.

    Args:
        charging: whether it runs on external power.
        battery: charge, 0 to 1.
        unmetered: whether the network in use costs nothing by the byte.
        idle: whether nobody uses it.
        thermal: how hot it is, on Android's scale: 0 not at all, 1 light, 2 moderate (it slows down), 3 severe and on.

    """

    charging: bool | None = None
    battery: float | None = None
    unmetered: bool | None = None
    idle: bool | None = None
    thermal: int | None = None


# Takes a look; may block for some milliseconds.
Provider = Callable[[], Conditions]


def fixed(conditions: Conditions) -> Provider:
    """A provider that always tells the same: for tests, and for devices whose state the app knows better."""
    return lambda: conditions
