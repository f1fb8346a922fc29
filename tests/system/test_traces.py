"""Coordinator and devices, processes of their own, send one trace of a trip to a collector."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from .conftest import Site

pytestmark = pytest.mark.full

SETTINGS = """
[merge]
buffer = 1
[stop]
versions = 2
[tracking]
opentelemetry = "{url}"
"""


class Collector:
    """What an OpenTelemetry collector takes: OTLP over HTTP, spans with the name of who sent them."""

    def __init__(self) -> None:
        self.spans: list[tuple[str, Any]] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                assert self.path == "/v1/traces"
                for each in ExportTraceServiceRequest.FromString(body).resource_spans:
                    (name,) = (
                        item.value.string_value for item in each.resource.attributes if item.key == "service.name"
                    )
                    collector.spans += [(name, span) for scope in each.scope_spans for span in scope.spans]
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def collector() -> Iterator[Collector]:
    """Listens."""
    collector = Collector()
    thread = threading.Thread(target=collector.server.serve_forever)
    thread.start()
    yield collector
    collector.server.shutdown()
    thread.join()
    collector.server.server_close()


def test_a_trip_is_one_trace_of_both_sides(site: Site, collector: Collector) -> None:
    serving = site.serve(SETTINGS.format(url=collector.url))
    device = site.device("phone-0", 0, "--traces", collector.url)
    assert device.wait() == 0
    assert serving.wait() == 0
    trips = {span.trace_id: span for name, span in collector.spans if span.name == "trip"}
    assert len(trips) == 2  # one for each version
    for trace, trip in trips.items():
        spans = {span.name: (name, span) for name, span in collector.spans if span.trace_id == trace}
        assert set(spans) == {
            *("trip", "waiting", "download", "training", "upload", "until merged"),
            *("device", "device.download", "device.train", "device.upload"),
        }
        assert spans["trip"][0] == "ftte"
        assert spans["device"][0] == "ftte-device phone-0"
        assert spans["device"][1].parent_span_id == trip.span_id
        assert not trip.parent_span_id


def test_a_collector_that_is_not_there_is_reported_once_by_both_and_the_run_ends(site: Site) -> None:
    serving = site.serve(SETTINGS.format(url="http://127.0.0.1:9"))
    device = site.device("phone-0", 0, "--traces", "http://127.0.0.1:9")
    assert device.wait() == 0
    assert serving.wait() == 0
    assert site.summary()["versions"] == 2
    for process in (serving, device):
        assert process.output.count("spans cannot be sent to http://127.0.0.1:9") == 1, process.output
        assert "Traceback" not in process.output
