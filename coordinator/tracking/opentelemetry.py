"""The ways of updates as OpenTelemetry spans."""

from __future__ import annotations

from opentelemetry.context import Context
from opentelemetry.sdk.trace.export import SpanExporter
from opentelemetry.trace import Span, set_span_in_context

from mobile_sdk.protocol.traces import TripTrace
from mobile_sdk.tracing.provider import TripIds, open_provider

from .tracker import TrackedPhase, TrackedTrip, TrackedUpdate, TrackedVersion

__all__ = ["OpenTelemetryTracker"]


class OpenTelemetryTracker:
    """
    A trace for every merged update, in which its device's own spans stand, too, if the device sends them.

    The span ``trip`` goes from the device's wish for work to the merge. Its parts: ``waiting`` for work, ``download``,
    ``training`` (as long as the device said, until it offered the update), ``upload``, ``until merged``.

    Args:
        run: the run's name.
        url: the collector's address.
        exporter: where to send spans instead.

    """

    def __init__(self, run: str, *, url: str = "", exporter: SpanExporter | None = None) -> None:
        self._run = run
        self._ids = TripIds()
        self._provider = open_provider("ftte", url=url, exporter=exporter, ids=self._ids)
        self._tracer = self._provider.get_tracer("ftte.coordinator")

    def on_version(self, version: TrackedVersion) -> None:
        pass  # the curves are elsewhere

    def on_update(self, update: TrackedUpdate) -> None:
        trip = update.trip
        assigned = trip.received_at - trip.parts.get("away", trip.parts.get("upload", 0.0))
        begun = assigned - trip.parts.get("waiting", 0.0)
        self._ids.give(TripTrace.parse(trip.traceparent))
        attributes: dict[str, str | int | float] = {
            "ftte.run": self._run,
            "ftte.tier": update.tier,
            "ftte.version": trip.version,
            "ftte.merged_into": update.version,
            "ftte.staleness": update.staleness,
            "ftte.weight": update.weight,
            "ftte.samples": update.samples,
            "ftte.bytes": trip.bytes_up,
        }
        whole = self._tracer.start_span("trip", Context(), attributes=attributes, start_time=_nanoseconds(begun))
        for name, (start, end) in _parts(trip, begun, assigned).items():
            self._part(whole, name, start, end)
        whole.end(_nanoseconds(max(trip.merged_at, trip.received_at)))

    def _part(self, whole: Span, name: str, start: float, end: float) -> None:
        span = self._tracer.start_span(name, set_span_in_context(whole), start_time=_nanoseconds(start))
        span.end(_nanoseconds(end))

    def on_phase(self, phase: TrackedPhase) -> None:
        pass  # of a run, not of a trip

    def close(self) -> None:
        self._provider.shutdown()


def _parts(trip: TrackedTrip, begun: float, assigned: float) -> dict[str, tuple[float, float]]:
    """When the known parts of a trip began and ended, in wall seconds."""
    seconds, offered = trip.parts, trip.received_at - trip.parts.get("upload", 0.0)
    parts = {}
    if "waiting" in seconds:
        parts["waiting"] = (begun, assigned)
    if "download" in seconds:
        parts["download"] = (assigned, assigned + seconds["download"])
    if "training" in seconds:
        downloaded = assigned + seconds.get("download", 0.0)
        parts["training"] = (max(offered - seconds["training"], min(downloaded, offered)), offered)
    if "upload" in seconds:
        parts["upload"] = (offered, trip.received_at)
    parts["until merged"] = (trip.received_at, max(trip.merged_at, trip.received_at))
    return parts


def _nanoseconds(wall: float) -> int:
    return int(wall * 1e9)
