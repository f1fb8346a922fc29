"""``ftte export``: a task's program in a folder, and what it costs."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from mobile_sdk.sizes import format_bytes, format_count, parse_bytes

from ..errors import ExportError
from ..quiet import quiet
from .progress import StageProgress
from .tables import print_rows

if TYPE_CHECKING:
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
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(handler=_export)


def _export(options: argparse.Namespace, console: Console) -> int:
    try:
        budget = None if options.budget is None else parse_bytes(options.budget)
    except ValueError as error:
        raise ExportError(str(error)) from error
    with StageProgress(console, as_json=options.json) as progress:
        progress.say("importing torch")
        with quiet():
            from ..memory.measure import measure  # torch takes seconds to import: not before the arguments are checked
            from ..pipeline import export
            from ..plan import Plan
            from ..program.build import build
            from ..search.baking import bake
            from ..task import load_task

        task = load_task(options.task)
        plan = None if options.plan is None else Plan.from_json(task.layout, _read(options.plan))
        program = export(task, budget=budget, plan=plan, progress=progress.say)
        if options.bake:
            progress.say("measuring what baking saves")
            program = export(task, budget=budget, plan=bake(task, [program.plan])[0], progress=progress.say)
        everything = program.manifest.memory.measured_bytes
        if set(program.plan.subset) != set(task.parameter_names()):
            progress.say("measuring what training everything would take")
            whole = Plan.everything(task, program.plan.micro_batch)
            everything = measure(build(task, whole, ("train_step",))).total_bytes
        program.save(options.out)
        layers: list[ExplainedLayer] = []
        if options.explain:
            progress.say("explaining")
            with quiet():
                from .explain import explain

                layers = explain(task, program.plan if plan is None or options.bake else plan)
    costs = _costs(task, program, everything)
    if options.json:
        explained = {"layers": [dataclasses.asdict(layer) for layer in layers]} if options.explain else {}
        print(json.dumps({**costs, "notes": list(task.notes), "out": str(options.out), **explained}, indent=2))
        return 0
    _show_costs(console, costs)
    for note in task.notes:
        console.print(f"Note: {note}", highlight=False, markup=False, soft_wrap=True)
    if options.explain:
        _show_layers(console, layers)
    for layer in layers:
        if layer.share * layer.portable > _SLOW:
            console.print(
                f"{layer.name} spends about {layer.share * layer.portable:.0%} of a step in portable kernels, "
                "which take one element at a time",
                highlight=False,
                soft_wrap=True,
            )
    console.print(f"Saved to {options.out}", highlight=False, soft_wrap=True)
    return 0


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ExportError(f"cannot read the plan {path}: {error}") from error


def _costs(task: Task, program: Program, everything: int) -> dict[str, Any]:
    """What a program costs, as JSON values; ``everything`` is the memory of a step that trains all, in bytes."""
    from mobile_sdk.payload import pack  # needs numpy, which other commands start sooner without

    manifest = program.manifest
    return {
        "task": task.name,
        "micro_batch": manifest.micro_batch,
        "trained_parameters": manifest.subset.size,
        "parameters": task.layout.size,
        "update_bytes": 4 * manifest.subset.size,
        "dense_update_bytes": 4 * task.layout.size,
        "program_bytes": len(program.pte),
        "compressed_program_bytes": len(pack(program.pte)[0]),
        "budget_bytes": manifest.memory.budget_bytes or None,
        "measured_bytes": manifest.memory.measured_bytes,
        "everything_bytes": everything,
        "planned_bytes": manifest.memory.planned_bytes,
        "idle_bytes": manifest.memory.idle_bytes,
        "baked": list(manifest.baked),
        "gradient_error": program.gradient_error,
        "seconds": program.seconds,
    }


def _show_costs(console: Console, costs: Mapping[str, Any]) -> None:
    trained, size, measured = costs["trained_parameters"], costs["parameters"], costs["measured_bytes"]
    everything = costs["everything_bytes"]
    program, compressed = format_bytes(costs["program_bytes"]), format_bytes(costs["compressed_program_bytes"])
    update, dense = format_bytes(costs["update_bytes"]), format_bytes(costs["dense_update_bytes"])
    share = f"{measured / everything:.0%}"
    rows = {
        "trained parameters": f"{trained:,} of {size:,} ({trained / size:.0%})",
        "update": f"{update}; dense float32: {dense}",
        "program": f"{program}; compressed: {compressed}",
        "budget": format_bytes(costs["budget_bytes"]) if costs["budget_bytes"] else "",
        "memory of a step": f"{format_bytes(measured)}; everything trained: {format_bytes(everything)} ({share})",
        "inside the program": f"{format_count(len(costs['baked']), 'frozen tensor')}, which no version changes",
        "of it planned arena": format_bytes(costs["planned_bytes"]),
        "idle floor": f"{format_bytes(costs['idle_bytes'])}, resident before the program; not counted",
        "gradient error": f"{costs['gradient_error']:.1e}",
        "export": f"{costs['seconds']:.1f} s",
    }
    if not costs["baked"]:
        del rows["inside the program"]
    console.print(f"{costs['task']}, {format_count(costs['micro_batch'], 'sample')} per step", style="italic")
    width = max(map(len, rows))
    for name, words in rows.items():
        if words:
            console.print(f"{name:{width}}  {words}", highlight=False, markup=False, soft_wrap=True)


def _show_layers(console: Console, layers: Sequence[ExplainedLayer]) -> None:
    rows = [{"layer": layer} for layer in layers]
    columns = {
        "layer": lambda row: row["layer"].name,
        "trained": lambda row: row["layer"].trained,
        "weights": lambda row: format_bytes(row["layer"].weight_bytes),
        "moved per step": lambda row: format_bytes(row["layer"].moved_bytes),
        "share of time": lambda row: f"{row['layer'].share:.1%}",
        "lowered to": lambda row: row["layer"].lowered,
    }
    print_rows(console, rows, columns, title="Layers; shares of the step time are estimates")
