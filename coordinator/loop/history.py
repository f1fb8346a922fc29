"""What trackers are told of a run as it goes."""

from __future__ import annotations

import math
from collections.abc import Sequence

from mobile_sdk.protocol.traces import TripTrace

from ..run_state import RunState
from ..store.records import MergedUpdate, UpdateRecord, VersionRecord
from ..tracking.tracker import TrackedPhase, TrackedTrip, TrackedUpdate, TrackedVersion
from ..tracking.trackers import Trackers
from ..updates.buffer import BufferedUpdate

__all__ = ["History"]


class History:
    """
    Turns what happens to a run into events for its trackers.

    Args:
        run: the run.
        trackers: are told.

    """

    def __init__(self, run: RunState, trackers: Trackers) -> None:
        self._run = run
        self._trackers = trackers

    def tell_phase(self) -> None:
        """The run has entered the phase that its state says."""
        run = self._run
        self._trackers.tell(TrackedPhase(run.phase, run.reason, run.clock.wall()))

    def tell_version(
        self, record: VersionRecord, updates: Sequence[BufferedUpdate], merged: Sequence[MergedUpdate]
    ) -> None:
        """
        A version was published.

        Args:
            record: the version.
            updates: what was taken from the buffer for it; outliers may be among them.
            merged: what became part of it.

        """
        if not self._trackers.followed:
            return
        by_id = {update.record.assignment: update.record for update in updates}
        for fate in merged:
            given = by_id[fate.assignment]
            loss = given.report.get("loss")
            trip = self._trip(given, record)
            self._trackers.tell(
                TrackedUpdate(
                    record.version,
                    given.tier,
                    fate.staleness,
                    fate.weight,
                    int(given.report["samples"]),
                    float(loss) if loss is not None and math.isfinite(loss) else None,
                    trip,
                )
            )
        count = len(merged)
        traffic = self._run.traffic()
        self._trackers.tell(
            TrackedVersion(
                version=record.version,
                parent=record.parent,
                kind=record.kind,
                at=record.created_at,
                metrics=dict(record.metrics),
                updates=count,
                staleness=sum(fate.staleness for fate in merged) / count if count else None,
                weight=sum(fate.weight for fate in merged) / count if count else None,
                buffer=self._run.buffer.capacity,
                bytes_up=traffic.up,
                bytes_down=traffic.down,
            )
        )

    def _trip(self, update: UpdateRecord, version: VersionRecord) -> TrackedTrip:
        parts = dict(update.report.get("trip", {}))
        if "seconds" in update.report:
            parts["training"] = float(update.report["seconds"])
        signature = self._run.tier(update.tier).record.signature
        return TrackedTrip(
            traceparent=TripTrace.of(signature, update.assignment).parent,
            version=update.version,
            bytes_up=update.artifact.size,
            received_at=update.received_at,
            merged_at=version.created_at,
            parts=parts,
        )
