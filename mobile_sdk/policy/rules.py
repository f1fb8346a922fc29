"""When a device may train: what its owner would not mind."""

from __future__ import annotations

import dataclasses
import os
import re
import tempfile
import time
from pathlib import Path

from ..conditions import Conditions
from ..sizes import format_bytes, parse_bytes
from ..system.users import user_name

__all__ = ["Policy", "usual_lock"]

_HOUR = re.compile(r"([01]\d|2[0-3]):([0-5]\d)")


@dataclasses.dataclass(frozen=True)
class Policy:
    """
    What must hold for a device to connect and train; the defaults demand nothing but that it is not too hot.

    It is looked at before connecting and every half a minute from then on; what no longer holds stops the training.

    Args:
        charging: only on external power.
        battery_above: only with more charge than this, 0 to 1; a device without a battery has enough.
        unmetered: only on a network that costs nothing by the byte; what cannot be told counts as metered.
        idle: only while nobody uses the device.
        cool: not while it is so hot that it slows down.
        hours: only within this window of local time, such as ``("22:00", "06:00")``.
        bytes_per_day: bytes, or a size like ``"50MB"``, moved at most in both directions, per day of local time; what
            is under way is cut off.
        one_at_a_time: never while another process of this device trains under a policy.
        lock: the file that says so; by default one per user of the machine. On Android give one in the app's folder.
        patience_seconds: leave the coordinator after waiting so long for work, instead of keeping a connection open
            whose pings keep a phone's radio awake; without it the device waits for as long as it takes.
        away_seconds: how long to stay away then, before it asks again.

    Raises:
        ValueError: if a limit makes no sense.

    """

    charging: bool = False
    battery_above: float = 0.0
    unmetered: bool = False
    idle: bool = False
    cool: bool = True
    hours: tuple[str, str] | None = None
    bytes_per_day: int | str | None = None
    one_at_a_time: bool = True
    lock: str | Path | None = None
    patience_seconds: float | None = None
    away_seconds: float = 900.0

    @classmethod
    def for_phones(cls, lock: str | Path | None = None) -> Policy:
        """What nobody minds on a phone: while charging, on an unmetered network, without waiting in vain for work."""
        return cls(charging=True, unmetered=True, lock=lock, patience_seconds=60.0)

    def __post_init__(self) -> None:
        if not 0 <= self.battery_above < 1:
            raise ValueError(f"battery_above is {self.battery_above}; it must be at least 0 and below 1")
        if isinstance(self.bytes_per_day, str):
            object.__setattr__(self, "bytes_per_day", parse_bytes(self.bytes_per_day))
        if self.daily_bytes is not None and self.daily_bytes < 1:
            raise ValueError(f"bytes_per_day is {self.bytes_per_day}; it must be at least 1, or None for no limit")
        if self.patience_seconds is not None and self.patience_seconds <= 0:
            raise ValueError(f"patience_seconds is {self.patience_seconds}; it must be above 0, or None to wait")
        if self.away_seconds <= 0:
            raise ValueError(f"away_seconds is {self.away_seconds}; it must be above 0")
        for hour in self.hours or ():
            if _HOUR.fullmatch(hour) is None:
                raise ValueError(f"hours has {hour!r}; write times like '22:00'")

    @property
    def daily_bytes(self) -> int | None:
        """``bytes_per_day`` in bytes."""
        return None if self.bytes_per_day is None else int(self.bytes_per_day)

    def obstacle(self, conditions: Conditions, wall: float, bytes_today: int) -> str | None:
        """
        Why the device may not train now; none if it may.

        Args:
            conditions: its state.
            wall: seconds since 1970.
            bytes_today: moved so far on this day.

        """
        if self.charging and conditions.charging is False:
            return "the device is not charging"
        if conditions.battery is not None and conditions.battery <= self.battery_above and self.battery_above > 0:
            return f"the battery is at {conditions.battery:.0%}, not above {self.battery_above:.0%}"
        if self.unmetered and not conditions.unmetered:
            return "the network is metered, or there is none"
        if self.idle and conditions.idle is False:
            return "the device is in use"
        if self.cool and conditions.thermal is not None and conditions.thermal >= 2:
            return "the device is too hot"
        if self.hours is not None and not _within(self.hours, time.localtime(wall)):
            return f"it is not between {self.hours[0]} and {self.hours[1]}"
        if self.daily_bytes is not None and bytes_today >= self.daily_bytes:
            return f"{format_bytes(bytes_today)} were moved today; {format_bytes(self.daily_bytes)} are allowed"
        return None


def _within(hours: tuple[str, str], now: time.struct_time) -> bool:
    begin, end = (60 * int(hour[:2]) + int(hour[3:]) for hour in hours)
    minute = 60 * now.tm_hour + now.tm_min
    return begin <= minute < end if begin <= end else minute >= begin or minute < end


def usual_lock() -> Path:
    """The file that processes of one user share."""
    return Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()) / f"ftte-training-{user_name()}.lock"
