"""Plans in a folder: one file per tier, and a summary of all that says what they were chosen on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mobile_sdk.layout import Layout
from mobile_sdk.sizes import format_bytes

from ..errors import ExportError
from ..plan import Plan
from ..space import LEVELS
from .all_budgets import Tiers

__all__ = ["load", "plan_file", "save", "summary"]

SUMMARY_FILE = "plans.json"


def plan_file(budget: int) -> str:
    """The name of a tier's plan, such as ``plan-4MB.json``."""
    return f"plan-{format_bytes(budget).replace(' ', '')}.json"


def save(tiers: Tiers, folder: Path) -> None:
    """Write each tier's plan, which ``ftte export --plan`` takes, and a summary of all."""
    folder.mkdir(parents=True, exist_ok=True)
    for tier in tiers.tiers:
        (folder / plan_file(tier.budget)).write_text(json.dumps(tier.plan.to_json(), indent=1) + "\n")
    (folder / SUMMARY_FILE).write_text(json.dumps(summary(tiers), indent=2) + "\n")


def summary(tiers: Tiers) -> dict[str, Any]:
    """Everything but the plans themselves, as a JSON value."""
    return {
        "task": tiers.space.task.name,
        "mode": tiers.mode,
        "unit": tiers.scores.unit,
        "everything_bytes": tiers.everything,
        "layers": [
            {
                "name": layer.name,
                "kind": layer.kind,
                "gains": dict(zip(LEVELS, map(float, gains), strict=True)),
                "tiers": count,
            }
            for layer, gains, count in zip(tiers.space.layers, tiers.scores.gains, tiers.coverage(), strict=True)
        ],
        "tiers": [
            {
                "plan": plan_file(tier.budget),
                "budget_bytes": tier.budget,
                "measured_bytes": tier.needs,
                "update_bytes": 4 * tier.plan.subset.size,
                "micro_batch": tier.plan.micro_batch,
                "expected_gain": tier.gain,
                "levels": [LEVELS[level] for level in tier.levels],
            }
            for tier in tiers.tiers
        ],
    }


def load(folder: Path, layout: Layout, budgets: Sequence[int]) -> list[Plan]:
    """
    The plans that :func:`save` wrote for ``budgets``, in their order.

    Args:
        folder: what :func:`save` wrote into.
        layout: the task's parameters.
        budgets: bytes.

    Raises:
        ExportError: if the folder has no plan for one of them, or a file is none.
        LayoutError: if a plan does not fit ``layout``.

    """
    try:
        tiers = json.loads((folder / SUMMARY_FILE).read_text())["tiers"]
        files = {int(tier["budget_bytes"]): str(tier["plan"]) for tier in tiers}
    except (OSError, KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ExportError(f"{folder} has no plans: {error}; write them with `ftte plan --out {folder}`") from error
    plans = []
    for budget in budgets:
        if budget not in files:
            have = ", ".join(format_bytes(b) for b in sorted(files))
            raise ExportError(f"{folder} has plans for {have}, not for {format_bytes(budget)}; plan for all budgets")
        try:
            plans.append(Plan.from_json(layout, (folder / files[budget]).read_text()))
        except OSError as error:
            raise ExportError(f"cannot read the plan of {format_bytes(budget)}: {error}") from error
    return plans
