"""What is going on, as plain values: for the display, the summary and tests."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from .net.traffic import Traffic
from .store.records import Phase

__all__ = ["DeviceState", "DeviceStatus", "RunStatus", "ShownPhase", "TripTimes"]

ShownPhase = Phase | Literal["stopped"]
DeviceState = Literal["offline", "idle", "waiting", "downloading", "training", "evaluating", "uploading"]


@dataclasses.dataclass(slots=True)
class TripTimes:
    """
    When the parts of a device's trip began and ended, as its coordinator saw it; monotonic times in seconds.

    A trip goes over all connections that it takes; a restart of the coordinator forgets its beginning.
    """

    _assignment: str = ""
    _asked: float | None = None
    _assigned: float = 0.0
    _waited: float | None = None
    _downloaded: float = 0.0

    def ask(self, now: float) -> None:
        """The device wants work."""
        self._asked = now

    def assign(self, assignment: str, now: float) -> None:
        """It has got some, or the same again."""
        if assignment != self._assignment:
            self._assignment, self._assigned, self._downloaded = assignment, now, now
            self._waited = None if self._asked is None else now - self._asked

    def finish_download(self, now: float) -> None:
        """The last byte of the last file has arrived there."""
        self._downloaded = now

    def parts(self, assignment: str, offered: float, now: float) -> dict[str, float]:
        """
        How many seconds each part took, as far as that is known.

        Args:
            assignment: whose update has just come.
            offered: when it was offered.
            now: when its last byte came.

        Returns:
            ``upload``; and, if the beginning of this trip was seen, ``waiting`` for work, ``download``, and ``away``:
            from the assignment until the update was here.

        """
        parts = {"upload": now - offered}
        if assignment == self._assignment:
            parts |= {"download": self._downloaded - self._assigned, "away": now - self._assigned}
            if self._waited is not None:
                parts["waiting"] = self._waited
        return {name: round(max(seconds, 0.0), 6) for name, seconds in parts.items()}


@dataclasses.dataclass
class DeviceStatus:
    """
    One device as the coordinator knows it.

    ``earlier`` holds the traffic of closed connections, ``current`` that of the open one. ``staleness`` is
    that of its last accepted update, ``report`` what it said of it; ``trip`` times its work; ``self_check`` why its
    runtime cannot be trusted with the run's programs, empty if it can; ``gave_back`` why it has given work back since
    its last update, empty if it has not; the rest is what it said of itself when it last asked for work.
    """

    id: str
    tier: str = ""
    state: DeviceState = "offline"
    engine: str = ""
    failures: int = 0
    updates: int = 0
    staleness: int | None = None
    report: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    samples: int | None = None
    peak_rss_bytes: int | None = None
    torch_loaded: bool | None = None
    model: str = ""
    self_check: str = ""
    gave_back: str = ""
    earlier: Traffic = dataclasses.field(default_factory=Traffic)
    current: Traffic = dataclasses.field(default_factory=Traffic)
    trip: TripTimes = dataclasses.field(default_factory=TripTimes)

    @property
    def bytes_up(self) -> int:
        """Bytes from the device."""
        return self.earlier.up + self.current.up

    @property
    def bytes_down(self) -> int:
        """Bytes to the device."""
        return self.earlier.down + self.current.down


@dataclasses.dataclass(frozen=True)
class RunStatus:
    """
    One look at a run.

    ``phase`` is where the run stands in its life, ``reason`` why; ``stopped`` stands for any phase in which an error
    keeps it from merging. ``capacity`` is the buffer's size, which may be ``adaptive``; ``mean_staleness`` is that of
    the updates merged lately, and ``margin`` how far merges of the adaptive size are from oscillating (above 1: they do
    not; :mod:`coordinator.merge.stability`). ``staleness`` counts merged updates by their staleness; ``history`` holds
    the last versions with their metrics, oldest first. ``waits_for`` says what must come before there is a new version,
    where that is not just more updates; ``notice`` what the operator should look at; ``watched`` is the metric of the
    run's ``[evaluation]``.
    """

    name: str
    phase: ShownPhase
    reason: str
    version: int
    metrics: Mapping[str, float]
    history: tuple[tuple[int, Mapping[str, float]], ...]
    buffered: int
    capacity: int
    adaptive: bool
    mean_staleness: float | None
    margin: float | None
    merged: int
    staleness: Mapping[int, int]
    devices: tuple[DeviceStatus, ...]
    waits_for: str = ""
    notice: str = ""
    watched: str = "accuracy"
