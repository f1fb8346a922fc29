"""What a tracker is told of a run."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Protocol

from ..store.records import Phase, VersionKind

__all__ = ["TrackedPhase", "TrackedTrip", "TrackedUpdate", "TrackedVersion", "Tracker"]


@dataclasses.dataclass(frozen=True)
class TrackedVersion:
    """
    A version was published.

    ``at`` is wall time in seconds since 1970. ``updates`` were merged into it, with a mean ``staleness`` in versions
    and a mean staleness ``weight`` from 0 to 1; none in a version that merged nothing. ``buffer`` is the buffer's
    capacity, ``bytes_up`` and ``bytes_down`` what all devices have moved since the run began.
    """

    version: int
    parent: int
    kind: VersionKind
    at: float
    metrics: Mapping[str, float]
    updates: int
    staleness: float | None
    weight: float | None
    buffer: int
    bytes_up: int
    bytes_down: int


@dataclasses.dataclass(frozen=True)
class TrackedTrip:
    """
    The way of an update, from its device's wish for work to the version that it became part of.

    ``traceparent`` is its W3C trace context; ``merged_at`` and ``received_at`` are wall times in seconds since 1970;
    ``parts`` are seconds, as far as they are known: ``waiting`` for work, ``download``, ``training``, ``upload``, and
    ``away``, from the assignment until the update was here. ``bytes_up`` is the update's size.
    """

    traceparent: str
    version: int
    bytes_up: int
    received_at: float
    merged_at: float
    parts: Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class TrackedUpdate:
    """
    An update was merged into ``version``: of which tier, how many versions old, with which staleness weight.

    ``samples`` is how many samples its device trained on; ``loss`` is the training loss that it reported, if it did;
    ``trip`` its way here.
    """

    version: int
    tier: str
    staleness: int
    weight: float
    samples: int
    loss: float | None
    trip: TrackedTrip


@dataclasses.dataclass(frozen=True)
class TrackedPhase:
    """The run has entered a phase, at the wall time ``at``."""

    phase: Phase
    reason: str
    at: float


class Tracker(Protocol):
    """
    Follows one run. Every method may block, and may raise: it is called from a thread of its own.

    A tracker that raises is told nothing more; the run goes on.
    """

    def on_version(self, version: TrackedVersion) -> None:
        """There is a new version."""
        ...

    def on_update(self, update: TrackedUpdate) -> None:
        """An update became part of a version; told before the version."""
        ...

    def on_phase(self, phase: TrackedPhase) -> None:
        """The run is in another phase."""
        ...

    def close(self) -> None:
        """The run is closed: write what is not written."""
        ...
