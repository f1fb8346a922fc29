"""Where spans go: an OpenTelemetry collector, by OTLP over HTTP; its failures are said once and stop nothing."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from urllib.parse import urlsplit

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

from ..protocol.traces import TripTrace
from ..version import __version__

__all__ = ["SayOnce", "TripIds", "open_provider"]

log = logging.getLogger(__name__)

# How long a collector may take; at the end of a process, this is how long it can delay it.
EXPORT_SECONDS = 5.0


class TripIds(RandomIdGenerator):
    """Random identities, except for the next span after :meth:`give`: that has the trip's own."""

    def __init__(self) -> None:
        self._given: TripTrace | None = None

    def give(self, trace: TripTrace) -> None:
        """The next span that has no parent is the trip ``trace`` itself. Not for several threads."""
        self._given = trace

    def generate_trace_id(self) -> int:
        """The given one, or a random one."""
        return super().generate_trace_id() if self._given is None else int(self._given.trace, 16)

    def generate_span_id(self) -> int:
        """The given one, once, or a random one."""
        if self._given is None:
            return super().generate_span_id()
        given, self._given = self._given, None
        return int(given.span, 16)


class SayOnce(SpanExporter):
    """
    An exporter whose failures are said once: spans that could not be sent are left out.

    Args:
        exporter: what sends them.
        where: what the log calls it.

    """

    def __init__(self, exporter: SpanExporter, where: str) -> None:
        self._exporter = exporter
        self._where = where
        self._said = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send spans; whatever goes wrong stays here."""
        try:
            result = self._exporter.export(spans)
        except Exception as error:  # whatever an exporter raises
            self._say(f"{type(error).__name__}: {error}")
            return SpanExportResult.FAILURE
        if result is not SpanExportResult.SUCCESS:
            self._say("nobody took them: see whether the collector listens there")
        return result

    def _say(self, why: str) -> None:
        if not self._said:
            self._said = True
            log.error("spans cannot be sent to %s and are left out: %s", self._where, why)

    def shutdown(self) -> None:
        """Close the exporter."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Send what waits."""
        return self._exporter.force_flush(timeout_millis)


def open_provider(
    service: str, *, url: str = "", exporter: SpanExporter | None = None, ids: TripIds | None = None
) -> TracerProvider:
    """
    A tracer provider for trips; ``shutdown()`` sends what waits.

    Args:
        service: who speaks: ``service.name`` of the spans.
        url: the collector's address, such as ``http://127.0.0.1:4318``; without a path, ``/v1/traces`` is meant.
        exporter: where to send spans instead.
        ids: makes identities.

    Raises:
        ValueError: if ``url`` is not the address of a collector.

    """
    if exporter is None:
        exporter = _otlp(url)
    resource = Resource.create({"service.name": service, "service.version": __version__})
    provider = TracerProvider(resource=resource, id_generator=ids, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(SayOnce(exporter, url or type(exporter).__name__)))
    return provider


def _otlp(url: str) -> SpanExporter:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{url!r} is no collector's address: write, for instance, http://127.0.0.1:4318")
    # It complains of every batch, and of every try; once is enough, and SayOnce says it.
    for name in ("opentelemetry.exporter.otlp", "opentelemetry.sdk.trace.export", "opentelemetry.sdk._shared_internal"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    endpoint = url if parts.path.strip("/") else f"{url.rstrip('/')}/v1/traces"
    return OTLPSpanExporter(endpoint=endpoint, timeout=EXPORT_SECONDS)
