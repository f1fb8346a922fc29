"""
How much faster than the stock export a training step could be at all: the time of its matrix products alone.

Every convolution (except depthwise ones) and every linear layer of a task is three products of matrices: forward, the
weights' gradient, the input's gradient (which the first layer does not need). Here they are timed bare, with torch.mm
on one thread and operands that are ready: no unrolling, no activation, no normalisation, no loss. Whatever takes part
in a step beside them comes on top, so the stock export's time over this one bounds the gain of any lowering into
products on this machine. The stock export's time and ours come from a result of ``step_time.py``, on the same machine.

    python -m benchmarks.step.step_floor --results benchmarks/results/step_time.json [--json FILE] [--table FILE]

"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from exporters import Task, load_task
from exporters.zoo import TASKS

REPEATS = 50


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--results", type=Path, required=True, metavar="FILE", help="JSON that step_time.py wrote")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--table", type=Path, metavar="FILE", help="Markdown file whose table to replace")
    options = parser.parse_args()
    torch.set_num_threads(1)
    report: dict[str, Any] = {"repeats": REPEATS, "tasks": {}}
    for name, measured in json.loads(options.results.read_text())["tasks"].items():
        if measured["kind"] != "conv" or measured["stock_ms"] is None:
            continue
        bare = 1e3 * sum(_seconds(*operands) for operands in products(load_task(TASKS[name])))
        report["tasks"][name] = {
            "products_ms": bare,
            "ours_ms": measured["ours_ms"],
            "eager_ms": measured["eager_ms"],
            "stock_ms": measured["stock_ms"],
            "stock_over_ours": measured["stock_ms"] / measured["ours_ms"],
            "stock_over_eager": measured["stock_ms"] / measured["eager_ms"],
            "stock_over_products": measured["stock_ms"] / bare,
        }
    print(table(report))
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")
    if options.table:
        begin, end = "<!-- step_floor -->", "<!-- /step_floor -->"
        before, _, rest = options.table.read_text().partition(begin)
        options.table.write_text(f"{before}{begin}\n{table(report)}\n{end}{rest.partition(end)[2]}")


def products(task: Task) -> Iterator[tuple[Tensor, Tensor]]:
    """The operands of all products of a step over the task's example batch."""
    shapes: list[tuple[int, int, int]] = []

    def note(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        weight = layer.weight
        assert isinstance(weight, Tensor)
        channels = 1 if isinstance(layer, nn.Conv1d | nn.Conv2d) else -1
        rows = output.numel() // output.shape[channels]
        shapes.append((rows, weight[0].numel(), weight.shape[0]))

    hooks = [
        layer.register_forward_hook(note)
        for layer in task.model.modules()
        if isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv1d | nn.Conv2d) and layer.groups == 1)
    ]
    with torch.no_grad():
        task.model(task.example_x)
    for hook in hooks:
        hook.remove()
    for index, (rows, taps, out) in enumerate(shapes):
        columns, weights, gradient = torch.rand(rows, taps), torch.rand(taps, out), torch.rand(rows, out)
        yield columns, weights
        yield gradient.t(), columns
        if index:
            yield gradient, weights.t()


def _seconds(a: Tensor, b: Tensor) -> float:
    result = a @ b
    times = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        torch.mm(a, b, out=result)
        times.append(time.perf_counter() - began)
    return statistics.median(times[REPEATS // 5 :])


def table(report: dict[str, Any]) -> str:
    """The results as Markdown."""
    lines = [
        "| task | stock, ms | ours, ms | bare products, ms | stock / eager | stock / ours | stock / bare products |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {name} | {r['stock_ms']:.1f} | {r['ours_ms']:.2f} | {r['products_ms']:.2f} "
        f"| {r['stock_over_eager']:.0f}x | {r['stock_over_ours']:.0f}x | {r['stock_over_products']:.0f}x |"
        for name, r in report["tasks"].items()
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
