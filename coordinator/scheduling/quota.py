"""How many bytes a device may move in a day."""

from __future__ import annotations

from ..status import DeviceStatus

__all__ = ["OverQuota", "Quota"]

DAY_SECONDS = 86_400.0


class OverQuota(Exception):
    """A device has moved as many bytes as it may in a day: it is sent away for ``seconds``."""

    words = "the device has moved as many bytes as it may in a day"

    def __init__(self, seconds: float) -> None:
        super().__init__(self.words)
        self.seconds = seconds


class Quota:
    """
    A limit per device and day, both directions together. The day of a device begins when it first comes.

    Args:
        bytes_per_day: the limit; none for no limit.

    ``is_limited`` tells whether there is one.
    """

    def __init__(self, bytes_per_day: int | None) -> None:
        self.is_limited = bytes_per_day is not None
        self._limit = bytes_per_day
        self._days: dict[str, tuple[float, int]] = {}  # device -> (start of its day, bytes moved before that)

    def check(self, device: str, status: DeviceStatus, now: float) -> None:
        """
        To be called where bytes are about to flow.

        Args:
            device: its name.
            status: counts its bytes.
            now: monotonic seconds.

        Raises:
            OverQuota: if the device is beyond its limit.

        """
        over = self.seconds(device, status, now)
        if over > 0:
            raise OverQuota(over)

    def seconds(self, device: str, status: DeviceStatus, now: float) -> float:
        """
        How long a device has to stay away: 0 while it is within its limit, else until its day is over.

        Args:
            device: its name.
            status: counts its bytes.
            now: monotonic seconds.

        """
        if self._limit is None:
            return 0.0
        moved = status.bytes_up + status.bytes_down
        began, before = self._days.setdefault(device, (now, moved))
        if now - began >= DAY_SECONDS:
            began, before = self._days[device] = (now, moved)
        return began + DAY_SECONDS - now if moved - before >= self._limit else 0.0
