"""What a run came to: ``summary.json``, and the same for people."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from ..run_state import RunState
from ..status import DeviceStatus
from .device_classes import device_classes

__all__ = ["summarise"]


def summarise(run: RunState) -> dict[str, Any]:
    """
    The summary of a run as JSON values.

    ``dense_bytes`` is what the same trips would have moved as float32 of the whole model: all of it
    down and all of it up per accepted update. Memory is in bytes and measured as in the manifest. ``wall_seconds`` goes
    from the first start to the end of the run, or until now: pauses and restarts are part of it.
    """
    status, first = run.status(), run.store.versions.get(0)
    dense = 2 * run.layout.nbytes
    devices = [_device(run, device, dense) for device in status.devices]
    return {
        "run": status.name,
        "accuracy": status.metrics.get("accuracy"),
        "initial_accuracy": first.metrics.get("accuracy"),
        "metrics": dict(status.metrics),
        "initial_metrics": dict(first.metrics),
        "watched": status.watched,
        **_personal(status.devices),
        "versions": status.version,
        "updates_merged": status.merged,
        "updates_buffered": status.buffered,
        "buffer": {
            "size": status.capacity,
            "adaptive": status.adaptive,
            "mean_staleness": status.mean_staleness,
            "margin": status.margin,
        },
        "wall_seconds": round(_wall_seconds(run), 3),
        "parameters": run.layout.size,
        "dense_bytes": sum(device["dense_bytes"] for device in devices),
        "bytes_up": sum(device["bytes_up"] for device in devices),
        "bytes_down": sum(device["bytes_down"] for device in devices),
        "saturated": run.saturated,
        "staleness": {str(tau): count for tau, count in status.staleness.items()},
        "tiers": [
            {
                "name": tier.name,
                "budget_bytes": tier.manifest.memory.budget_bytes,
                "planned_bytes": tier.manifest.memory.planned_bytes,
                "measured_bytes": tier.manifest.memory.measured_bytes,
                "trained_parameters": len(tier.positions),
                "program_bytes": tier.record.program.size,
                "micro_batch": tier.manifest.micro_batch,
            }
            for tier in run.tiers
        ],
        "devices": devices,
        "classes": device_classes(status.devices),
        "federated": [dataclasses.asdict(result) for result in run.federated.results],
    }


def _wall_seconds(run: RunState) -> float:
    """From the run's first start to its end, or until now; 0 if it was never started."""
    log = run.store.audit.entries()
    began = next((entry.at for entry in log if entry.action == "running"), None)
    if began is None:
        return 0.0
    ended = [entry.at for entry in log if entry.action == "finished"] if run.phase == "finished" else []
    return max((ended[-1] if ended else run.clock.wall()) - began, 0.0)


def _personal(devices: Sequence[DeviceStatus]) -> dict[str, Any]:
    """
    Global and personal metrics side by side, where the task has parameters that stay on devices.

    Means over the samples of all devices, as each reported with its last update.
    """
    said = [
        (device.report.get("samples", 0), device.report["global_metrics"], device.report["personal_metrics"])
        for device in devices
        if "personal_metrics" in device.report and "global_metrics" in device.report
    ]
    total = sum(samples for samples, _, _ in said)
    if not total:
        return {}
    names = set.intersection(*(set(together) & set(alone) for _, together, alone in said))
    return {
        "on_devices": {
            name: {
                "global": sum(samples * together[name] for samples, together, _ in said) / total,
                "personal": sum(samples * alone[name] for samples, _, alone in said) / total,
            }
            for name in sorted(names)
        }
    }


def _device(run: RunState, device: DeviceStatus, dense: int) -> dict[str, Any]:
    memory = run.tier(device.tier).manifest.memory if device.tier else None
    return {
        "id": device.id,
        "tier": device.tier,
        "budget_bytes": memory.budget_bytes if memory else None,
        "planned_bytes": memory.planned_bytes if memory else None,
        "measured_bytes": memory.measured_bytes if memory else None,
        "peak_rss_bytes": device.peak_rss_bytes,
        "torch_loaded": device.torch_loaded,
        "samples": device.samples,
        "updates": device.updates,
        "bytes_up": device.bytes_up,
        "bytes_down": device.bytes_down,
        "dense_bytes": dense * device.updates,
    }
