"""``ftte plan``: which layers each memory tier trains, as a table, as files, and as a picture."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from mobile_sdk.sizes import format_bytes, parse_bytes

from ..errors import ExportError
from ..quiet import quiet

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
    parser.add_argument("--processes", type=int, metavar="N", help="default: as many as there are processors")
    parser.add_argument("--shrink", action="store_true", help="take smaller micro-batches where that trains more")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="DIR", help="where plans and picture go")
    parser.set_defaults(handler=_plan)


def _plan(options: argparse.Namespace, console: Console) -> int:
    try:
        budgets = sorted({parse_bytes(part) for part in options.budgets.split(",")})
    except ValueError as error:
        raise ExportError(str(error)) from error
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bars:
        bar = bars.add_task("importing torch", total=None)
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
            progress=lambda stage, done, total: bars.update(bar, description=stage, completed=done, total=total),
        )
        check_least(evidence, budgets)
        scores = select(evidence, options.selector)
        tiers = plan_tiers(evidence, scores, budgets, mode=options.mode, shrink=options.shrink)
        bars.update(bar, description="drawing", total=None)
        save(tiers, options.out)
        draw(tiers, options.out / PICTURE_FILE)
    console.print(table(tiers))
    console.print(f"Plans and picture are in {options.out}", highlight=False)
    return 0


def table(tiers: Tiers) -> Table:
    """A row per layer, a column per tier: what is trained, and the bytes of its update."""
    from ..space import FROZEN, LEVELS

    space = tiers.space
    result = Table(title=f"{space.task.name}, {tiers.mode}", title_justify="left", show_footer=False)
    result.add_column("layer")
    result.add_column(f"gain, {tiers.scores.unit}", justify="right")
    for tier in tiers.tiers:
        result.add_column(f"budget {format_bytes(tier.budget)}", justify="right")
    result.add_column("tiers", justify="right")
    coverage = tiers.coverage()
    for i, layer in enumerate(space.layers):
        cells = []
        for tier in tiers.tiers:
            level = tier.levels[i]
            names = [n for n in (*layer.weights, *layer.biases) if n in tier.plan.subset]
            size = 4 * sum(math.prod(tier.plan.subset.shape(n)) for n in names)
            cells.append("" if level == FROZEN else f"{LEVELS[level]}  {format_bytes(size)}")
        row = (f"{layer.name or space.task.name} [dim]{layer.kind}[/dim]", f"{tiers.scores.gains[i].max():.3g}", *cells)
        result.add_row(*row, f"{coverage[i]} of {len(tiers.tiers)}", style="dim" if not coverage[i] else "")
    result.add_section()
    needs = [f"{format_bytes(tier.needs)} ({tier.needs / tiers.everything:.0%})" for tier in tiers.tiers]
    result.add_row("measured memory", "", *needs, "")
    result.add_row("samples a step", "", *[str(tier.plan.micro_batch) for tier in tiers.tiers], "")
    result.add_row("update", "", *[format_bytes(4 * tier.plan.subset.size) for tier in tiers.tiers], "")
    result.add_row("expected gain", "", *[f"{tier.gain:.3g}" for tier in tiers.tiers], "")
    result.caption = f"everything: {format_bytes(tiers.everything)} at {space.task.micro_batch} samples a step"
    result.caption_justify = "left"
    return result
