"""``ftte export``: a task's program in a folder, and what it costs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from mobile_sdk.payload import pack
from mobile_sdk.sizes import format_bytes, parse_bytes

from ..errors import ExportError
from ..quiet import quiet

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..program.build import Program
    from ..task import Task
    from .explain import ExplainedLayer

__all__ = ["add_export_command"]

# Part of a step that portable kernels of one layer may take before it is said.
_SLOW = 0.15


def add_export_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """
    Add ``export`` to the commands of ``ftte``.

    The parsed options carry ``handler(options, console)``, which gives the exit code and leaves
    :exc:`~mobile_sdk.errors.FtteError` to the caller.
    """
    parser = commands.add_parser("export", help="make a task's training program for a memory budget")
    parser.add_argument("task", metavar="MODULE:TASK", help="such as exporters.zoo.digits:task")
    parser.add_argument("--budget", metavar="BYTES", help="memory of a training step, such as 2MB; default: train all")
    parser.add_argument("--plan", type=Path, metavar="FILE", help="what to train, as `ftte plan` writes it")
    parser.add_argument(
        "--bake",
        action="store_true",
        help="put convolutions that the plan leaves alone inside the program, if that is leaner",
    )
    parser.add_argument("--explain", action="store_true", help="show what every layer became, and what it costs")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="DIR", help="where to write the program")
    parser.set_defaults(handler=_export)


def _export(options: argparse.Namespace, console: Console) -> int:
    try:
        budget = None if options.budget is None else parse_bytes(options.budget)
    except ValueError as error:
        raise ExportError(str(error)) from error
    with console.status("importing torch") as status:
        with quiet():
            from ..memory.measure import measure  # torch takes seconds to import: not before the arguments are checked
            from ..pipeline import export
            from ..plan import Plan
            from ..program.build import build
            from ..search.baking import bake
            from ..task import load_task

        task = load_task(options.task)
        plan = None if options.plan is None else Plan.from_json(task.layout, _read(options.plan))
        program = export(task, budget=budget, plan=plan, progress=status.update)
        if options.bake:
            status.update("measuring what baking saves")
            program = export(task, budget=budget, plan=bake(task, [program.plan])[0], progress=status.update)
        everything = program.manifest.memory.measured_bytes
        if set(program.plan.subset) != set(task.parameter_names()):
            status.update("measuring what training everything would take")
            whole = Plan.everything(task, program.plan.micro_batch)
            everything = measure(build(task, whole, ("train_step",))).total_bytes
    program.save(options.out)
    console.print(_costs(task, program, everything))
    for note in task.notes:
        console.print(f"Note: {note}", highlight=False)
    if options.explain:
        with console.status("explaining"), quiet():
            from .explain import explain

            layers = explain(task, program.plan if plan is None or options.bake else plan)
        console.print(_layers(layers))
        slow = [layer for layer in layers if layer.share * layer.portable > _SLOW]
        for layer in slow:
            share = f"{layer.share * layer.portable:.0%}"
            console.print(
                f"{layer.name} spends about {share} of a step in portable kernels, which take one element at a time",
                highlight=False,
            )
    console.print(f"Saved to {options.out}", highlight=False)
    return 0


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ExportError(f"cannot read the plan {path}: {error}") from error


def _costs(task: Task, program: Program, everything: int) -> Table:
    manifest = program.manifest
    trained, size = manifest.subset.size, task.layout.size
    measured, limit = manifest.memory.measured_bytes, manifest.memory.budget_bytes
    compressed = len(pack(program.pte)[0])
    table = Table(
        title=f"{task.name}, {manifest.micro_batch} samples per step", show_header=False, title_justify="left"
    )
    table.add_row("trained parameters", f"{trained:,} of {size:,} ({trained / size:.0%})")
    table.add_row("update", f"{format_bytes(4 * trained)}; dense float32: {format_bytes(4 * size)}")
    table.add_row("program", f"{format_bytes(len(program.pte))}; compressed: {format_bytes(compressed)}")
    if limit:
        table.add_row("budget", format_bytes(limit))
    table.add_row(
        "memory of a step",
        f"{format_bytes(measured)}; everything trained: {format_bytes(everything)} ({measured / everything:.0%})",
    )
    if manifest.baked:
        table.add_row("inside the program", f"{len(manifest.baked)} frozen tensors, which no version changes")
    table.add_row("of it planned arena", format_bytes(manifest.memory.planned_bytes))
    table.add_row("idle floor", f"{format_bytes(manifest.memory.idle_bytes)}, resident before the program; not counted")
    table.add_row("gradient error", f"{program.gradient_error:.1e}")
    table.add_row("export", f"{program.seconds:.1f} s")
    return table


def _layers(layers: Sequence[ExplainedLayer]) -> Table:
    table = Table(title="Layers; shares of the step time are estimates", title_justify="left")
    for column in ("layer", "trained", "lowered to"):
        table.add_column(column)
    for column in ("weights", "moved per step", "share of time"):
        table.add_column(column, justify="right")
    for layer in layers:
        table.add_row(
            layer.name,
            layer.trained,
            layer.lowered,
            format_bytes(layer.weight_bytes),
            format_bytes(layer.moved_bytes),
            f"{layer.share:.1%}",
        )
    return table
