"""A device's part of its trips as spans, made of the events that its client tells."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)

from ..events import (
    Assigned,
    Declined,
    Downloading,
    Event,
    Training,
    UpdateAccepted,
    UpdateRejected,
    Uploading,
)
from ..protocol.traces import TripTrace

__all__ = ["TripSpans"]


@dataclasses.dataclass
class _Trip:
    """A trip under way: the span of the device's part, and the one of what it does now, which began at ``since``."""

    assignment: str
    whole: Span
    part: Span
    name: str
    since: int


class TripSpans:
    """
    A listener of :meth:`~mobile_sdk.client.Client.run` that traces every trip.

    The span ``device`` belongs to the coordinator's span ``trip``; its parts are ``device.download``, ``device.train``
    and ``device.upload``. Trips that a restarted process only hands in are not traced here.

    Args:
        provider: where spans go; see :func:`~mobile_sdk.tracing.provider.open_provider`.
        then: told every event after that.
        wall: wall time in nanoseconds since 1970.

    """

    def __init__(
        self,
        provider: TracerProvider,
        then: Callable[[Event], None] = lambda event: None,
        wall: Callable[[], int] = time.time_ns,
    ) -> None:
        self._tracer = provider.get_tracer("ftte.device")
        self._then = then
        self._wall = wall
        self._trip: _Trip | None = None

    def __call__(self, event: Event) -> None:
        """Take an event; whatever goes wrong with spans, ``then`` hears it."""
        try:
            self._take(event)
        finally:
            self._then(event)

    def _take(self, event: Event) -> None:
        trip = self._trip
        match event:
            case Assigned() if trip is not None and trip.assignment == event.assignment:
                pass  # the link broke, and it goes on with what it has
            case Assigned():
                self._end("given up for other work")
                self._trip = self._begin(event) if event.traceparent else None
            case Downloading() if trip is not None:
                trip.since = self._wall()
            case Training() if trip is not None:
                if trip.name == "device.download":
                    self._next(trip, "device.train", trip.since)  # it is told of when its first step is done
                trip.part.set_attributes({"ftte.steps": event.steps, "ftte.loss": event.loss})
                if event.step == event.steps:
                    self._next(trip, "device.upload", self._wall())
            case Uploading() if trip is not None:
                trip.part.set_attribute("ftte.bytes", event.size)
            case Declined() | UpdateRejected() if trip is not None and trip.assignment == event.assignment:
                self._end(event.reason)
            case UpdateAccepted() if trip is not None and trip.assignment == event.assignment:
                trip.whole.set_attributes(
                    {"ftte.staleness": event.staleness, "ftte.cpu_seconds": event.cost.cpu_seconds}
                )
                self._end()
            case _:
                pass

    def _begin(self, event: Assigned) -> _Trip:
        trace, now = TripTrace.parse(event.traceparent), self._wall()
        parent = SpanContext(int(trace.trace, 16), int(trace.span, 16), is_remote=True, trace_flags=TraceFlags(1))
        whole = self._tracer.start_span(
            "device",
            set_span_in_context(NonRecordingSpan(parent)),
            SpanKind.SERVER,
            {"ftte.assignment": event.assignment, "ftte.version": event.version},
            start_time=now,
        )
        return _Trip(event.assignment, whole, self._part(whole, "device.download", now), "device.download", now)

    def _part(self, whole: Span, name: str, since: int) -> Span:
        return self._tracer.start_span(name, set_span_in_context(whole), start_time=since)

    def _next(self, trip: _Trip, name: str, at: int) -> None:
        trip.part.end(at)
        trip.part, trip.name, trip.since = self._part(trip.whole, name, at), name, at

    def _end(self, why: str = "") -> None:
        trip, self._trip = self._trip, None
        if trip is None:
            return
        trip.part.end(self._wall())
        if why:
            trip.whole.set_status(Status(StatusCode.ERROR, why))
        trip.whole.end(self._wall())

    def close(self) -> None:
        """End what is under way."""
        self._end("the device's process has ended")
