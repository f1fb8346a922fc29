"""
Stop before Android does: it ends a data-sync service after six hours (apps for Android 15 and later).

As Android counts: hours of service within the last 24 hours, without those in which the app is in front; bringing the
app to the front begins anew (developer.android.com, "Foreground service timeouts"). The seconds are written down as
they pass, so a restart does not begin anew.
"""

from __future__ import annotations

import json
from pathlib import Path

__all__ = ["DailyLimit"]

DAY_SECONDS = 86_400.0
# A quarter of an hour less than what the system allows.
LIMIT_SECONDS = 5.75 * 3600


class DailyLimit:
    """
    Counts service time within the last 24 hours.

    Args:
        path: where it is written down.
        limit: seconds that may be used within a day.

    """

    def __init__(self, path: Path, limit: float = LIMIT_SECONDS) -> None:
        self._path = path
        self._limit = limit
        # Intervals (begin, end) in seconds of the wall clock, oldest first.
        self._spans: list[list[float]] = []
        try:
            spans = json.loads(path.read_text("utf-8"))
            self._spans = [[float(begin), float(end)] for begin, end in spans if begin <= end]
        except (OSError, ValueError, TypeError):
            self._spans = []

    def note(self, now: float, since: float) -> None:
        """The service ran unseen from ``since`` to ``now`` (wall clock, seconds); call again as time passes."""
        if self._spans and self._spans[-1][0] == since:
            self._spans[-1][1] = max(now, self._spans[-1][1])
        else:
            self._spans.append([since, max(now, since)])
        self._spans = [span for span in self._spans if span[1] > now - DAY_SECONDS]
        self._write()

    def reset(self) -> None:
        """The app came to the front."""
        if self._spans:
            self._spans = []
            self._write()

    def used(self, now: float) -> float:
        """Seconds of service within the last day."""
        begin = now - DAY_SECONDS
        return sum(max(0.0, min(end, now) - max(start, begin)) for start, end in self._spans)

    def left(self, now: float) -> float:
        """Seconds that may still be used now."""
        return max(0.0, self._limit - self.used(now))

    def free_again(self, now: float, wanted: float = 600.0) -> float:
        """Seconds to wait until ``wanted`` seconds may be used."""
        wait = 0.0
        while self._limit - self.used(now + wait) < wanted and wait < DAY_SECONDS:
            wait += 60.0
        return wait

    def _write(self) -> None:
        part = self._path.with_suffix(".part")
        part.write_text(json.dumps(self._spans), "utf-8")
        part.replace(self._path)
