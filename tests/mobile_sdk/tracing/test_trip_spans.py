"""A device's trips become spans below the coordinator's, by OpenTelemetry's own SDK; no failure of it reaches a run."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from mobile_sdk.client import Client
from mobile_sdk.data import ArrayDataset
from mobile_sdk.events import Assigned, Declined, Downloading, Event, RunFinished, Training
from mobile_sdk.protocol.messages import Finished, Offer
from mobile_sdk.protocol.traces import TripTrace
from mobile_sdk.tracing.provider import open_provider
from mobile_sdk.tracing.trip_spans import TripSpans
from mobile_sdk.training.settings import TrainingSettings

from ..engines import native_program
from ..participation.pipe import RUN, Served, Talk, connect_to

X, Y, _, _ = native_program.example(9, seed=3)


class Refusing(SpanExporter):
    """A collector that takes nothing."""

    def __init__(self) -> None:
        self.asked = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.asked += 1
        if self.asked == 1:
            raise ConnectionError("the collector is gone")
        return SpanExportResult.FAILURE


@pytest.fixture(scope="module")
def served() -> Served:
    return Served()


def trace_one_trip(served: Served, folder: Path, exporter: SpanExporter) -> list[Event]:
    """A real client trains once and hands its update in."""
    told: list[Event] = []

    async def script(talk: Talk) -> None:
        await talk.ready()
        talk.session.assign(talk.served.assign(1, TrainingSettings(epochs=2, batch_size=4)))
        await talk.link.flush()
        offer = await talk.next()
        assert isinstance(offer, Offer)
        await talk.update(offer.artifact, follows=offer.follows)
        talk.session.accept("a00000001", staleness=2, duplicate=False)
        await talk.ready()
        talk.session.announce(Finished(1, "done", {"accuracy": 0.5}))
        await talk.link.flush()

    async def main() -> None:
        provider = open_provider("phone-1", exporter=exporter)
        connect = connect_to(served, script)
        dataset = ArrayDataset(X, Y)
        async with Client(connect, run=RUN, key=served.key, dataset=dataset, storage=folder, name="phone-1") as client:
            await asyncio.wait_for(client.run(TripSpans(provider, told.append)), 60)
        provider.shutdown()

    asyncio.run(main())
    return told


def parents(spans: Sequence[ReadableSpan]) -> dict[str, str]:
    """The name of each span's parent; hexadecimal where it is not among them."""
    names = {span.context.span_id: span.name for span in spans if span.context}
    return {
        span.name: names.get(span.parent.span_id, format(span.parent.span_id, "016x")) for span in spans if span.parent
    }


def test_a_trip_has_its_parts_below_the_coordinators_span(served: Served, tmp_path: Path) -> None:
    exporter = InMemorySpanExporter()
    told = trace_one_trip(served, tmp_path, exporter)
    spans = exporter.get_finished_spans()
    expected = TripTrace.of(served.signature, "a00000001")
    assert parents(spans) == {
        "device": expected.span,
        "device.download": "device",
        "device.train": "device",
        "device.upload": "device",
    }
    assert {format(span.context.trace_id, "032x") for span in spans if span.context} == {expected.trace}
    by_name = {span.name: span for span in spans}
    assert dict(by_name["device"].attributes or {})["ftte.staleness"] == 2
    assert dict(by_name["device.train"].attributes or {})["ftte.steps"] == 6
    order = [by_name[name] for name in ("device.download", "device.train", "device.upload")]
    for earlier, later in itertools.pairwise(order):
        assert earlier.end_time == later.start_time
    (assigned,) = [event for event in told if isinstance(event, Assigned)]
    assert TripTrace.parse(assigned.traceparent) == expected
    assert isinstance(told[-1], RunFinished)


def test_a_collector_that_takes_nothing_is_reported_once_and_stops_nothing(
    served: Served, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    exporter = Refusing()
    with caplog.at_level(logging.WARNING):
        told = trace_one_trip(served, tmp_path, exporter)
        spans = TripSpans(provider := open_provider("phone-1", exporter=exporter))
        spans(Assigned("a00000002", 1, TripTrace.of("ab", "a00000002").parent))
        spans.close()
        provider.shutdown()
    assert isinstance(told[-1], RunFinished)
    assert exporter.asked == 2
    said = [record.getMessage() for record in caplog.records]
    assert said[0] == "spans cannot be sent to Refusing and are left out: ConnectionError: the collector is gone"
    assert len(said) == 2  # one for each provider


def test_one_provider_says_once_that_its_collector_fails(caplog: pytest.LogCaptureFixture) -> None:
    exporter = Refusing()
    provider = open_provider("phone-1", exporter=exporter)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            provider.get_tracer("test").start_span("one").end()
            provider.force_flush()
    provider.shutdown()
    assert exporter.asked == 3
    assert len(caplog.records) == 1


def test_what_was_given_back_or_given_up_is_an_error() -> None:
    exporter = InMemorySpanExporter()
    provider = open_provider("phone-1", exporter=exporter)
    heard: list[Event] = []
    spans = TripSpans(provider, heard.append)
    events: list[Any] = [
        Training(1, 2, 0.5),  # of a trip that began before this process
        Assigned("a00000001", 1, TripTrace.of("ab", "a00000001").parent),
        Downloading(5, 10),
        Assigned("a00000001", 1, TripTrace.of("ab", "a00000001").parent),  # again, after the link broke
        Declined("a00000001", "the samples are no pictures"),
        Assigned("a00000002", 1, TripTrace.of("ab", "a00000002").parent),
        Assigned("a00000003", 1),  # of a coordinator that says nothing of traces
    ]
    for event in events:
        spans(event)
    spans.close()
    provider.shutdown()
    assert heard == events
    whole = [span for span in exporter.get_finished_spans() if span.name == "device"]
    assert [(span.status.status_code, span.status.description) for span in whole] == [
        (StatusCode.ERROR, "the samples are no pictures"),
        (StatusCode.ERROR, "given up for other work"),
    ]


def test_an_address_that_is_no_collectors_is_refused() -> None:
    for url in ("localhost:4318", "ftp://localhost", "http://", ""):
        with pytest.raises(ValueError, match="no collector's address"):
            open_provider("phone-1", url=url)
