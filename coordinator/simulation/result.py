"""What a simulation came to, as JSON values."""

from __future__ import annotations

import collections
import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from ..net.traffic import Traffic
from ..run_state import RunState
from .device import SimulatedDevice

__all__ = ["Point", "summarise_simulation"]


@dataclasses.dataclass(frozen=True)
class Point:
    """
    The run at one moment.

    ``seconds`` are virtual; ``trips`` counts merged updates; bytes are those of all devices since the start.
    """

    seconds: float
    version: int
    trips: int
    bytes_up: int
    bytes_down: int
    metrics: Mapping[str, float]


def summarise_simulation(
    run: RunState,
    devices: Sequence[SimulatedDevice],
    curve: Sequence[Point],
    *,
    ended: str,
    seconds: float,
    traffic: Traffic,
    repeated_bytes: int,
    step_seconds: Mapping[str, float],
) -> dict[str, Any]:
    """
    The result of a simulation; the same for the same scenario, to the last bit.

    ``seconds`` are virtual. ``weights_sha256`` is that of the final weight vector. ``classes`` gives for each class of
    devices, and for stragglers and the others if there are stragglers, how many there are, took part, and what each did
    on average.
    """
    merged = run.store.updates.merged()
    staleness = collections.Counter(update.staleness for update in merged)
    status = {device.id: device for device in run.status().devices}
    groups: dict[str, list[SimulatedDevice]] = collections.defaultdict(list)
    stragglers = any(device.profile.straggler for device in devices)
    for device in devices:
        groups[device.profile.kind].append(device)
        if stragglers:
            groups["stragglers" if device.profile.straggler else "others"].append(device)
    return {
        "run": run.config.run.name,
        "ended": ended,
        "seconds": seconds,
        "versions": run.versions.newest.version,
        "trips": len(merged),
        "trainings": sum(device.trainings for device in devices),
        "drop_outs": sum(device.drop_outs for device in devices),
        "parameters": run.layout.size,
        "bytes_up": traffic.up,
        "bytes_down": traffic.down,
        "repeated_bytes": repeated_bytes,
        "weights_sha256": hashlib.sha256(run.versions.vector.tobytes()).hexdigest(),
        "step_seconds": dict(step_seconds),
        "staleness": {str(tau): staleness[tau] for tau in sorted(staleness)},
        "tiers": [
            {
                "name": tier.name,
                "budget_bytes": tier.manifest.memory.budget_bytes,
                "measured_bytes": tier.manifest.memory.measured_bytes,
                "planned_bytes": tier.manifest.memory.planned_bytes,
                "trained_parameters": len(tier.positions),
                "program_bytes": tier.record.program.size,
                "micro_batch": tier.manifest.micro_batch,
            }
            for tier in run.tiers
        ],
        "classes": {name: _group(members, status) for name, members in groups.items()},
        "curve": [dataclasses.asdict(point) for point in curve],
    }


def _group(devices: Sequence[SimulatedDevice], status: Mapping[str, Any]) -> dict[str, Any]:
    known = [status[device.profile.name] for device in devices if device.profile.name in status]
    count = len(devices)
    return {
        "devices": count,
        "took_part": sum(device.updates > 0 for device in known),
        "updates": sum(device.updates for device in known),
        "updates_each": sum(device.updates for device in known) / count,
        "bytes_up_each": sum(device.bytes_up for device in known) / count,
        "bytes_down_each": sum(device.bytes_down for device in known) / count,
        "compute_seconds_each": sum(device.busy_seconds for device in devices) / count,
    }
