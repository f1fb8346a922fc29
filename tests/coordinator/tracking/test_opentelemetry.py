"""A trip of a real run as spans, by OpenTelemetry's own SDK."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from coordinator.net.traffic import Traffic
from coordinator.simulation.virtual_time import START, run
from coordinator.tracking.opentelemetry import OpenTelemetryTracker
from coordinator.tracking.trackers import Trackers
from mobile_sdk.events import Assigned
from mobile_sdk.protocol.messages import Accepted, Assign
from mobile_sdk.protocol.traces import TripTrace
from mobile_sdk.tracing.provider import open_provider
from mobile_sdk.tracing.trip_spans import TripSpans

from ..small_run import Device, make_run, update_bytes

PARTS = ("waiting", "download", "training", "upload", "until merged")


class Broken(SpanExporter):
    """A collector that is gone."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        raise ConnectionError("the collector is gone")


def one_trip(folder: Path, exporter: SpanExporter) -> Assign:
    """A device asks for work, downloads for 3 s, trains for 5 s, uploads, and is merged with a second one's update."""
    trackers = Trackers("small", {"opentelemetry": OpenTelemetryTracker("small", exporter=exporter)})
    assigned: list[Assign] = []

    async def main() -> None:
        given = make_run(folder, merge={"buffer": 2}, stop={"versions": 1})
        coordinator = given.coordinator(lambda vector: {"accuracy": 0.5}, trackers=trackers)
        running = asyncio.create_task(coordinator.run())
        first, second = Device(given, "phone-1"), Device(given, "phone-2")
        async with first.connected(coordinator.serve), second.connected(coordinator.serve):
            for device in (first, second):
                await device.join()
                assign = await device.work()
                assigned.append(assign)
                await asyncio.sleep(3)
                await device.download(assign.weights[0])
                await asyncio.sleep(5)
                content = update_bytes("large", 0.1)
                assert isinstance(await device.upload(assign, content, seconds=4.5, loss=0.25), Accepted)
            await running
        given.store.close()

    run(main())
    trackers.close()
    return assigned[0]


def seconds(span: ReadableSpan) -> float:
    assert span.end_time is not None
    assert span.start_time is not None
    return (span.end_time - span.start_time) / 1e9


def test_a_merged_updates_way_is_a_trace_with_the_parts_of_the_trip(tmp_path: Path) -> None:
    exporter = InMemorySpanExporter()
    assign = one_trip(tmp_path, exporter)
    expected = TripTrace.of(assign.signature, assign.assignment)
    spans = [
        span
        for span in exporter.get_finished_spans()
        if span.context and format(span.context.trace_id, "032x") == expected.trace
    ]
    (whole,) = [span for span in spans if span.name == "trip"]
    assert whole.parent is None
    assert whole.context is not None
    assert format(whole.context.span_id, "016x") == expected.span
    parts = {span.name: span for span in spans if span is not whole}
    assert set(parts) == set(PARTS)
    assert all(span.parent and span.parent.span_id == whole.context.span_id for span in parts.values())
    assert seconds(parts["download"]) == pytest.approx(3, abs=0.01)
    assert seconds(parts["training"]) == pytest.approx(4.5, abs=0.01)
    assert seconds(parts["until merged"]) == pytest.approx(8, abs=0.01)  # until the second device's update was here
    assert seconds(whole) == pytest.approx(16, abs=0.01)
    assert whole.start_time is not None
    assert whole.start_time / 1e9 >= START
    attributes = dict(whole.attributes or {})
    assert (attributes["ftte.run"], attributes["ftte.tier"], attributes["ftte.merged_into"]) == ("small", "large", 1)
    assert "phone" not in repr([span.to_json() for span in exporter.get_finished_spans()])


def test_the_devices_spans_stand_in_the_coordinators_trace(tmp_path: Path) -> None:
    theirs, mine = InMemorySpanExporter(), InMemorySpanExporter()
    assign = one_trip(tmp_path, theirs)
    provider = open_provider("phone-1", exporter=mine)
    listener = TripSpans(provider)
    listener(
        Assigned(assign.assignment, assign.version, TripTrace.of(assign.signature, assign.assignment).parent)
    )  # as the client tells it
    listener.close()
    provider.shutdown()
    trips = {span.context.span_id for span in theirs.get_finished_spans() if span.context and span.name == "trip"}
    (device,) = [span for span in mine.get_finished_spans() if span.name == "device"]
    assert device.parent is not None
    assert device.parent.span_id in trips


def test_an_exporter_that_fails_is_reported_once_and_the_run_ends(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        one_trip(tmp_path, Broken())
    said = [record.getMessage() for record in caplog.records]
    assert said == ["spans cannot be sent to Broken and are left out: ConnectionError: the collector is gone"]


def test_a_trip_is_timed_over_the_connections_that_it_takes(tmp_path: Path) -> None:
    async def main() -> None:
        given = make_run(tmp_path, merge={"buffer": 1}, stop={"versions": 1})
        coordinator = given.coordinator(lambda vector: {"accuracy": 0.5})
        running = asyncio.create_task(coordinator.run())
        async with Device(given, "phone-1").connected(coordinator.serve, Traffic()) as phone:
            await phone.join()
            assign = await phone.work()
            await asyncio.sleep(2)
            await phone.download(assign.weights[0])
        await asyncio.sleep(10)
        async with Device(given, "phone-1", enrolled=True).connected(coordinator.serve, Traffic()) as phone:
            await phone.join()
            await phone.upload(assign, update_bytes("large", 0.1), seconds=1.0, trip={"away": -5})
            await running
        (trip,) = given.store.updates.trips(10)
        assert trip.report["trip"] == {
            "upload": 0.0,
            "download": pytest.approx(2, abs=0.01),
            "away": pytest.approx(12, abs=0.01),
            "waiting": 0.0,
        }
        given.store.close()

    run(main())
