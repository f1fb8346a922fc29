"""``ftte plan``: which layers each memory tier trains, as a table, as files, and as a picture."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from mobile_sdk.sizes import format_bytes, format_count, parse_bytes

from ..errors import ExportError
from ..quiet import quiet
from .progress import StageProgress
from .tables import Columns, print_rows

if TYPE_CHECKING:
    from ..search import Tiers

__all__ = ["add_plan_command"]

STATE_FILE = "search.json"
PICTURE_FILE = "plans.png"


def add_plan_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``plan`` to the commands of ``ftte``; see :func:`~exporters.cli.export.add_export_command`."""
    parser = commands.add_parser("plan", help="find out what each memory budget should train")
    parser.add_argument("task", metavar="MODULE:TASK", help="such as exporters.zoo.digits:task")
    parser.add_argument("--budgets", required=True, metavar="BYTES,...", help="memory of a training step, per tier")
    parser.add_argument("--mode", default="nested", metavar="MODE", help="nested (a plan per budget) or common (one)")
    parser.add_argument("--selector", metavar="NAME", help="how layers are ranked; see docs/how-to/plan.md")
    parser.add_argument("--data", metavar="MODULE:CALLABLE", help="your own samples (x, y); default: the task's proxy")
    parser.add_argument("--seed", type=int, default=0, help="fixes every draw (default: 0)")
    parser.add_argument("--steps", type=int, default=40, help="steps of each short fine-tuning (default: 40)")
    parser.add_argument("--learning-rate", type=float, default=0.02, help="of fine-tuning (default: 0.02)")
    parser.add_argument("--processes", type=int, metavar="N", help="at most (default: as many as there are processors)")
    parser.add_argument(
        "--no-shrink", action="store_false", dest="shrink", help="take no smaller micro-batches to train more"
    )
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="DIR", help="where plans and picture go")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(handler=_plan)


def _plan(options: argparse.Namespace, console: Console) -> int:
    try:
        budgets = sorted({parse_bytes(part) for part in options.budgets.split(",")})
    except ValueError as error:
        raise ExportError(str(error)) from error
    with StageProgress(console, as_json=options.json) as progress:
        progress.say("importing torch")
        with quiet():  # torch takes seconds to import: not before the arguments are checked
            from ..cache.journal import Journal
            from ..importance.finetune import FineTuning
            from ..search import check_least, evidence_of, plan_tiers, select
            from ..search.plan_files import save
            from ..task import load_samples, load_task
            from .picture import draw

        task = load_task(options.task)
        samples = load_samples(options.data) if options.data else None
        evidence = evidence_of(
            task,
            samples=samples,
            seed=options.seed,
            fine_tuning=FineTuning(options.steps, learning_rate=options.learning_rate),
            journal=Journal(options.out / STATE_FILE),
            processes=options.processes,
            progress=progress.show,
        )
        check_least(evidence, budgets)
        scores = select(evidence, options.selector)
        tiers = plan_tiers(evidence, scores, budgets, mode=options.mode, shrink=options.shrink)
        progress.say("drawing")
        save(tiers, options.out)
        draw(tiers, options.out / PICTURE_FILE)
    result = describe(tiers)
    if options.json:
        print(json.dumps({**result, "out": str(options.out)}, indent=2))
        return 0
    _show(console, result)
    console.print(f"Plans and picture are in {options.out}", highlight=False, soft_wrap=True)
    return 0


def describe(tiers: Tiers) -> dict[str, Any]:
    """The plans as JSON values: for each layer what the tiers train of it, and for each tier what that takes."""
    from ..space import LEVELS

    space, coverage = tiers.space, tiers.coverage()
    layers = []
    for i, layer in enumerate(space.layers):
        trained = []
        for tier in tiers.tiers:
            names = [n for n in (*layer.weights, *layer.biases) if n in tier.plan.subset]
            size = 4 * sum(math.prod(tier.plan.subset.shape(n)) for n in names)
            trained.append({"level": LEVELS[tier.levels[i]], "update_bytes": size})
        layers.append(
            {
                "name": layer.name or space.task.name,
                "kind": layer.kind,
                "gain": float(tiers.scores.gains[i].max()),
                "trained": trained,
                "tiers": int(coverage[i]),
            }
        )
    return {
        "task": space.task.name,
        "mode": tiers.mode,
        "unit": tiers.scores.unit,
        "everything_bytes": tiers.everything,
        "micro_batch": space.task.micro_batch,
        "layers": layers,
        "tiers": [
            {
                "budget_bytes": tier.budget,
                "measured_bytes": tier.needs,
                "micro_batch": tier.plan.micro_batch,
                "update_bytes": 4 * tier.plan.subset.size,
                "expected_gain": float(tier.gain),
            }
            for tier in tiers.tiers
        ],
    }


def _show(console: Console, result: Mapping[str, Any]) -> None:
    """A row per layer, a column per tier: what is trained, and the bytes of its update; below, what that takes."""
    tiers = result["tiers"]
    columns: dict[str, Any] = {
        "layer": lambda row: f"{row['name']} {row['kind']}",
        f"gain, {result['unit']}": lambda row: f"{row['gain']:.3g}",
        **{f"budget {format_bytes(tier['budget_bytes'])}": _trained(i) for i, tier in enumerate(tiers)},
        "tiers": lambda row: f"{row['tiers']} of {len(tiers)}",
    }
    print_rows(console, result["layers"], columns, title=f"{result['task']}, {result['mode']}")
    console.print()
    everything = result["everything_bytes"]
    needs: Columns = {
        "budget": lambda tier: format_bytes(tier["budget_bytes"]),
        "measured memory": lambda tier: (
            f"{format_bytes(tier['measured_bytes'])} ({tier['measured_bytes'] / everything:.0%})"
        ),
        "samples a step": lambda tier: str(tier["micro_batch"]),
        "update": lambda tier: format_bytes(tier["update_bytes"]),
        "expected gain": lambda tier: f"{tier['expected_gain']:.3g}",
    }
    print_rows(console, tiers, needs)
    samples = format_count(result["micro_batch"], "sample")
    console.print(f"everything: {format_bytes(everything)} at {samples} a step", highlight=False, soft_wrap=True)


def _trained(index: int) -> Any:
    """What a row of a layer says of the tier of this index."""

    def cell(row: Mapping[str, Any]) -> str:
        part = row["trained"][index]
        return f"{part['level']}  {format_bytes(part['update_bytes'])}" if part["update_bytes"] else ""

    return cell
