"""Bytes that a connection has moved."""

from __future__ import annotations

import dataclasses

__all__ = ["Traffic"]


@dataclasses.dataclass
class Traffic:
    """Bytes that a device's connection moved, counted at the socket."""

    up: int = 0
    down: int = 0
