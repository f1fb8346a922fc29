"""Which layers each tier trains, and how many devices reach each of them."""

from __future__ import annotations

import collections
import math
from collections.abc import Sequence
from typing import Any

from ..programs.tiers import Tier
from ..status import DeviceStatus

__all__ = ["layer_coverage", "plans"]


def plans(tiers: Sequence[Tier]) -> dict[str, Any]:
    """
    The run's plans as JSON values.

    Args:
        tiers: the run's programs, smallest first.

    Returns:
        ``layers``, from the input to the output, each with its number of ``parameters``; and ``tiers``, each with the
        ``shares`` of every layer that it trains, from 0 to 1.

    """
    layout = tiers[0].manifest.layout
    layers: dict[str, list[str]] = collections.defaultdict(list)
    for parameter in layout:
        layers[parameter.name.rpartition(".")[0] or parameter.name].append(parameter.name)
    sizes = {name: sum(math.prod(layout[each].shape) for each in names) for name, names in layers.items()}
    return {
        "layers": [{"name": name, "parameters": sizes[name]} for name in layers],
        "tiers": [
            {
                "name": tier.name,
                "budget_bytes": tier.manifest.memory.budget_bytes,
                "planned_bytes": tier.manifest.memory.planned_bytes,
                "measured_bytes": tier.manifest.memory.measured_bytes,
                "program_bytes": tier.record.program.size,
                "update_bytes": tier.update_bytes,
                "trained": len(tier.positions),
                "micro_batch": tier.manifest.micro_batch,
                "shares": [
                    sum(_trained(tier, name) for name in names) / max(sizes[layer], 1)
                    for layer, names in layers.items()
                ],
            }
            for tier in tiers
        ],
        "parameters": layout.size,
    }


def _trained(tier: Tier, name: str) -> int:
    subset = tier.manifest.subset
    return math.prod(subset.shape(name)) if name in subset else 0


def layer_coverage(shares: Sequence[tuple[str, Sequence[float]]], devices: Sequence[DeviceStatus]) -> list[float]:
    """
    Of each layer, the share of accepted updates that trained it, from 0 to 1.

    Args:
        shares: the tiers' names, with their shares of the layers.
        devices: the fleet.

    """
    updates: collections.Counter[str] = collections.Counter()
    for device in devices:
        updates[device.tier] += device.updates
    total = sum(updates[name] for name, _ in shares) or 1
    width = len(shares[0][1]) if shares else 0
    return [round(sum(updates[name] * part[layer] for name, part in shares) / total, 4) for layer in range(width)]
