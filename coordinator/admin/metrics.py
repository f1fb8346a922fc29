"""The service's numbers in Prometheus' text format."""

from __future__ import annotations

import collections
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ..merge.defence import REASONS
from ..net.admission import ConnectionLimits
from ..runs.service import Service

__all__ = ["metric_families", "metrics_text"]

PHASES = ("created", "running", "paused", "draining", "finished", "stopped")


def metrics_text(service: Service, gate: ConnectionLimits) -> str:
    """Everything that there is to scrape; names are documented in ``docs/how-to/operate.md``."""
    registry = CollectorRegistry()
    registry.register(_Numbers(service, gate))
    return generate_latest(registry).decode()


def metric_families(service: Service, gate: ConnectionLimits) -> list[Metric]:
    """What :func:`metrics_text` writes, as values: one family for each name, also of what has no value yet."""
    return list(_Numbers(service, gate).collect())


class _Numbers(Collector):
    def __init__(self, service: Service, gate: ConnectionLimits) -> None:
        self._service = service
        self._gate = gate

    def collect(self) -> Iterable[Metric]:
        yield GaugeMetricFamily("ftte_connections", "Open device connections.", self._gate.open)
        yield GaugeMetricFamily("ftte_handshakes", "Connections whose peer has not proved itself.", self._gate.unproven)
        yield GaugeMetricFamily("ftte_gateways", "Gateways that hold the connections.", len(self._gate.gateways))
        opened = GaugeMetricFamily("ftte_gateway_connections", "Open connections of each.", labels=("gateway",))
        unproven = GaugeMetricFamily("ftte_gateway_handshakes", "Of them, not proved.", labels=("gateway",))
        busy = CounterMetricFamily("ftte_gateway_cpu_seconds", "Processor time of each.", labels=("gateway",))
        for gateway in self._gate.gateways:
            opened.add_metric((gateway.name,), gateway.open)
            unproven.add_metric((gateway.name,), gateway.unproven)
            busy.add_metric((gateway.name,), gateway.cpu_seconds)
        yield from (opened, unproven, busy)
        yield CounterMetricFamily("ftte_connections_shed", "Connections refused for lack of room.", self._gate.shed)
        yield CounterMetricFamily("ftte_connections_cut", "Connections that broke a limit.", self._gate.cut)
        phase = GaugeMetricFamily("ftte_run_phase", "1 for the phase that a run is in.", labels=("run", "phase"))
        version = GaugeMetricFamily("ftte_version", "The newest version.", labels=("run",))
        buffered = GaugeMetricFamily("ftte_buffered_updates", "Updates that wait to be merged.", labels=("run",))
        size = GaugeMetricFamily("ftte_buffer_size", "Updates that the next merge takes.", labels=("run",))
        stale = GaugeMetricFamily("ftte_mean_staleness", "Of the updates merged lately, in versions.", labels=("run",))
        merged = CounterMetricFamily("ftte_merged_updates", "Updates that were merged.", labels=("run",))
        accepted = CounterMetricFamily("ftte_accepted_updates", "Updates that were accepted.", labels=("run",))
        failures = CounterMetricFamily("ftte_device_failures", "Given back, refused or overdue.", labels=("run",))
        saturated = CounterMetricFamily(
            "ftte_saturated_parameters", "Parameters cut off in accepted updates of integers.", labels=("run",)
        )
        checks = CounterMetricFamily(
            "ftte_self_check_failures", "Self-checks that devices' runtimes failed.", labels=("run",)
        )
        distrusted = GaugeMetricFamily(
            "ftte_devices_failing_self_check",
            "Devices whose runtime failed it last.",
            labels=("run", "model", "engine"),
        )
        moved = CounterMetricFamily("ftte_bytes", "Bytes moved, by direction.", labels=("run", "direction"))
        devices = GaugeMetricFamily("ftte_devices", "Devices by what they do.", labels=("run", "state"))
        working = GaugeMetricFamily(
            "ftte_tasks_working", "Tasks at work on devices that are connected.", labels=("run",)
        )
        waiting = GaugeMetricFamily("ftte_devices_waiting", "Devices that wait for their turn.", labels=("run",))
        aside = GaugeMetricFamily(
            "ftte_devices_set_aside", "Devices of which nothing is merged, by why.", labels=("run", "reason")
        )
        overdue = CounterMetricFamily("ftte_tasks_overdue", "Tasks whose place was given to another.", labels=("run",))
        metric = GaugeMetricFamily("ftte_metric", "Metrics of the newest version.", labels=("run", "metric"))
        stuck = GaugeMetricFamily("ftte_run_not_learning", "1 while versions are no better than 0.", labels=("run",))
        own = GaugeMetricFamily(
            "ftte_federated_metric", "Metrics on the devices' own samples, newest result.", labels=("run", "metric")
        )
        for name, running in sorted(self._service.runs.items()):
            status = running.coordinator.status()
            scheduler = running.coordinator.dispatcher.scheduler
            for each in PHASES:
                phase.add_metric((name, each), float(status.phase == each))
            version.add_metric((name,), status.version)
            stuck.add_metric((name,), float(bool(status.notice)))
            buffered.add_metric((name,), status.buffered)
            size.add_metric((name,), status.capacity)
            if status.mean_staleness is not None:
                stale.add_metric((name,), status.mean_staleness)
            merged.add_metric((name,), status.merged)
            accepted.add_metric((name,), sum(device.updates for device in status.devices))
            failures.add_metric((name,), sum(device.failures for device in status.devices))
            saturated.add_metric((name,), running.coordinator.state.saturated)
            checks.add_metric((name,), running.coordinator.state.self_check_failures)
            wrong = collections.Counter((d.model[:64], d.engine) for d in status.devices if d.self_check)
            for kind, count in wrong.items():
                distrusted.add_metric((name, *kind), count)
            moved.add_metric((name, "up"), sum(device.bytes_up for device in status.devices))
            moved.add_metric((name, "down"), sum(device.bytes_down for device in status.devices))
            for state, count in collections.Counter(device.state for device in status.devices).items():
                devices.add_metric((name, state), count)
            working.add_metric((name,), scheduler.training)
            waiting.add_metric((name,), len(scheduler.waiting))
            reasons = collections.Counter(each.reason for each in running.coordinator.state.aside.values())
            for reason in REASONS:
                aside.add_metric((name, reason), reasons[reason])
            overdue.add_metric((name,), scheduler.overdue)
            for key, value in status.metrics.items():
                metric.add_metric((name, key), value)
            for result in running.coordinator.state.federated.results[-1:]:
                for key, value in result.metrics.items():
                    own.add_metric((name, key), value)
        yield from (phase, version, buffered, size, stale, merged, accepted, failures, moved, devices)
        yield from (working, waiting, aside, overdue, metric, stuck, own)
        yield from (checks, distrusted, saturated)
