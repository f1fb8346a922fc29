"""
How long a training step takes: our program in the native runtime, torch eager, and ExecuTorch's stock training export.

All three run in this one process on one thread, the same weights and batch of 16, whole model trained: torch's and
ExecuTorch's pools are both set to one thread, explicitly. Steps of ours and of eager alternate; medians are compared.
The stock export is timed over a few steps, since it takes seconds on convolutional nets; where it cannot be made or
run, the reason is given instead. Its memory is the growth of a process of its own, from before the program is loaded to
the peak of a step.

About ten minutes on two idle cores. ``--table FILE`` replaces the table in a Markdown file, between the marks
``<!-- step_time -->`` and ``<!-- /step_time -->``.

    python -m benchmarks.step.step_time [--quick] [--tasks NAME ...] [--json FILE] [--figure FILE] [--table FILE]

"""

from __future__ import annotations

import argparse
import copy
import ctypes
import gc
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from executorch.exir import EdgeCompileConfig, to_edge
from executorch.extension.pybindings.portable_lib import _unsafe_reset_threadpool
from executorch.extension.training import _load_for_executorch_for_training_from_buffer
from rich.console import Console
from rich.progress import Progress
from torch import Tensor, nn
from torch.export import export as torch_export
from torch.export.experimental import _export_forward_backward

from exporters import Task, export, load_task
from exporters.program.step import Step
from exporters.quiet import quiet
from exporters.zoo import TASKS
from mobile_sdk import load_engine
from mobile_sdk.errors import FtteError
from mobile_sdk.manifest import EXECUTORCH_VERSION
from mobile_sdk.payload import pack

CONV = {"digits", "lenet", "group_norm", "cifar", "mobilenet_v2", "mobilenet_v3", "resnet20", "ds_cnn", "motion"}
QUICK = ["digits", "mlp", "lenet", "motion", "text"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--quick", action="store_true", help=f"only {', '.join(QUICK)}; about two minutes")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, metavar="NAME", help=f"some of {', '.join(TASKS)}")
    parser.add_argument("--steps", type=int, default=30, help="steps of ours and of eager (default: 30)")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--figure", type=Path, metavar="FILE", help="bars, as PNG or SVG")
    parser.add_argument("--table", type=Path, metavar="FILE", help="Markdown file whose table to replace")
    parser.add_argument("--stock-memory", metavar="NAME", help=argparse.SUPPRESS)  # the fresh process
    options = parser.parse_args()
    torch.set_num_threads(1)
    # ExecuTorch's pool, which the stock export's bindings share with nothing of ours.
    _unsafe_reset_threadpool(1)
    if options.stock_memory:
        print(json.dumps(stock_memory(load_task(TASKS[options.stock_memory]))))
        return
    console = Console(width=110)
    names = options.tasks or (QUICK if options.quick else list(TASKS))
    results = {}
    with Progress(console=console, transient=True) as progress:
        for name in progress.track(names):
            try:
                results[name] = measure(name, options.steps)
            except FtteError as error:  # the other tasks still count
                console.print(f"{name:12} failed: {error}", highlight=False)
                continue
            console.print(_line(name, results[name]), highlight=False)
    if not results:
        raise SystemExit("no task could be measured")
    ratios = [result["ratio_eager"] for result in results.values()]
    report = {
        "machine": {"processor": _processor(), "cores_used": 1, "system": platform.platform()},
        "versions": {"torch": torch.__version__, "executorch": EXECUTORCH_VERSION, "python": platform.python_version()},
        "seed": 0,
        "batch": 16,
        "steps": options.steps,
        "tasks": results,
        "geomean_ratio_eager": math.exp(statistics.fmean(math.log(ratio) for ratio in ratios)),
    }
    console.print(f"geometric mean of ours / eager: {report['geomean_ratio_eager']:.2f}", highlight=False)
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")
    if options.figure:
        draw(report, options.figure)
    if options.table:
        write_table(report, options.table)


def measure(name: str, steps: int) -> dict[str, Any]:
    """All figures of one task."""
    with quiet():
        task = load_task(TASKS[name])
        began = time.perf_counter()
        program = export(task, cached=False)
        export_seconds = time.perf_counter() - began
    with tempfile.TemporaryDirectory() as folder:
        program.save(folder)
        engine = load_engine(folder, threads=1)
    weights = task.layout.views(program.weights)
    batch = task.example_x.numpy(), task.example_y.numpy(), np.ones(len(task.example_x), np.float32)
    step = Step(task, program.plan)
    tensors = [torch.from_numpy(array) for array in batch] + [torch.from_numpy(weights[n]) for n in step.order]
    ours, eager = [], []
    for _ in range(steps + 5):
        ours.append(_seconds(lambda: engine.train_step(*batch, weights)))
        eager.append(_seconds(lambda: step.train_step(*tensors)))
    engine.close()
    ours_ms, eager_ms = (1e3 * statistics.median(times[5:]) for times in (ours, eager))
    stock_ms, stock_error, stock_problem = stock(task, repeats=3)
    stock_bytes = None if stock_ms is None else _in_fresh_process(name)
    return {
        "ours_ms": ours_ms,
        "eager_ms": eager_ms,
        "stock_ms": stock_ms,
        "ratio_eager": ours_ms / eager_ms,
        "ratio_stock": None if stock_ms is None else stock_ms / ours_ms,
        "stock_measured_bytes": stock_bytes,
        "ratio_stock_memory": stock_bytes and program.manifest.memory.measured_bytes / stock_bytes,
        "stock_gradient_error": stock_error,
        "stock_problem": stock_problem,
        "gradient_error": program.gradient_error,
        "measured_bytes": program.manifest.memory.measured_bytes,
        "planned_bytes": program.manifest.memory.planned_bytes,
        "idle_bytes": program.manifest.memory.idle_bytes,
        "program_bytes": len(pack(program.pte)[0]),
        "export_seconds": export_seconds,
        "parameters": task.layout.size,
        "kind": "conv" if name in CONV else "other",
    }


class _Loss(nn.Module):
    """The stock export takes a module whose first output is the loss."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.model = copy.deepcopy(task.model)
        self.loss = task.loss

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.loss(self.model(x), y).sum()


def stock(task: Task, repeats: int) -> tuple[float | None, float | None, str | None]:
    """Median milliseconds of the stock export's step, its largest gradient error, and what is wrong with it."""
    module = _Loss(task)
    try:
        buffer, inputs = _stock_program(task)
        with quiet():
            loaded = _load_for_executorch_for_training_from_buffer(buffer)
            times = [_seconds(lambda: loaded.forward_backward("forward", inputs)) for _ in range(repeats)]
            gradients = loaded.named_gradients()
    except Exception as error:  # whatever stops it is the result
        return None, None, f"{type(error).__name__}: {str(error).strip().splitlines()[0][:120]}"
    module.zero_grad()
    module(*inputs).backward()
    errors = [
        float((gradients[n].reshape(-1) - p.grad.reshape(-1)).norm() / p.grad.norm().clamp_min(1e-12))
        for n, p in module.named_parameters()
        if n in gradients and p.grad is not None
    ]
    worst = max(errors)
    wrong = None if worst < 1e-3 else f"wrong gradients: off by {worst:.2g} of their norm"
    return 1e3 * statistics.median(times), worst, wrong


def _stock_program(task: Task) -> tuple[Any, tuple[Tensor, Tensor]]:
    module = _Loss(task)
    inputs = (task.example_x, task.example_y)
    with quiet():
        joint = _export_forward_backward(torch_export(module, inputs, strict=True))
        program = to_edge(joint, compile_config=EdgeCompileConfig(_check_ir_validity=False)).to_executorch()
    return program.buffer, inputs


def stock_memory(task: Task) -> int:
    """
    Growth of anonymous memory from just before the stock program is loaded to the peak of its steps, in bytes.

    Exported beforehand in the same process; what the allocator kept from that is given back first, so that it cannot
    hide the growth. The program holds the weights, so the trained ones are in it, as they are in our figure.
    """
    buffer, inputs = _stock_program(task)
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    before = _status("RssAnon")
    loaded = _load_for_executorch_for_training_from_buffer(buffer)
    loaded.forward_backward("forward", inputs)
    Path("/proc/self/clear_refs").write_text("5")
    loaded.forward_backward("forward", inputs)
    # The momentum that our figure counts.
    momentum = sum(4 * p.numel() for p in task.model.parameters())
    return _status("VmHWM") - _status("RssFile") - _status("RssShmem") - before + momentum


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {field}; memory is measured on Linux only")


def _in_fresh_process(name: str) -> int | None:
    command = [sys.executable, __file__, "--stock-memory", name]
    environment = os.environ | {"MALLOC_ARENA_MAX": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    return int(done.stdout.splitlines()[-1]) if done.returncode == 0 else None


def _seconds(function: Callable[[], Any]) -> float:
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def _line(name: str, result: dict[str, Any]) -> str:
    parts = [
        f"{name:12} ours {result['ours_ms']:6.2f} ms, eager {result['eager_ms']:6.2f} ms: {result['ratio_eager']:.2f}",
        "no stock" if result["stock_ms"] is None else f"stock {result['ratio_stock']:.0f}x slower",
        f"error {result['gradient_error']:.0e}",
        f"{result['measured_bytes'] / 1e6:.1f} MB",
        f"export {result['export_seconds']:.0f} s",
    ]
    problem = f"\n{'':13}stock: {result['stock_problem']}" if result["stock_problem"] else ""
    return "; ".join(parts) + problem


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def write_table(report: dict[str, Any], file: Path) -> None:
    """Replace what stands between the marks of a Markdown file."""
    begin, end = "<!-- step_time -->", "<!-- /step_time -->"
    before, _, rest = file.read_text().partition(begin)
    _, _, after = rest.partition(end)
    file.write_text(f"{before}{begin}\n{table(report)}\n{end}{after}")


def table(report: dict[str, Any]) -> str:
    """The results as Markdown."""
    lines = [
        "| task | ours, ms | eager, ms | ratio | stock | memory | stock's memory | error | program | export |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, result in report["tasks"].items():
        problem = result["stock_problem"]
        if result["ratio_stock"] is None:
            slower = f"none: {problem.partition(':')[0]}"
        else:
            slower = f"{result['ratio_stock']:.0f}x" + (", wrong gradients" if problem else "")
        theirs = result["stock_measured_bytes"]
        lines.append(
            f"| {name} | {result['ours_ms']:.2f} | {result['eager_ms']:.2f} | {result['ratio_eager']:.2f} | {slower} "
            f"| {result['measured_bytes'] / 1e6:.1f} MB | {'' if theirs is None else f'{theirs / 1e6:.1f} MB'} "
            f"| {result['gradient_error']:.0e} | {result['program_bytes'] / 1e3:.0f} KB "
            f"| {result['export_seconds']:.0f} s |"
        )
    machine = report["machine"]["processor"]
    lines += [
        "",
        f"Geometric mean of the ratio: {report['geomean_ratio_eager']:.2f}. {machine}, one thread, torch "
        f"{report['versions']['torch']}, executorch {report['versions']['executorch']}, batch {report['batch']}, "
        f"median of {report['steps']} steps (the stock export: of 3).",
    ]
    return "\n".join(lines)


def draw(report: dict[str, Any], file: Path) -> None:
    """Step time relative to eager, as bars."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    names = list(report["tasks"])
    ratios = [report["tasks"][name]["ratio_eager"] for name in names]
    figure, axes = plt.subplots(figsize=(9, 4.5), layout="constrained")
    bars = axes.barh(names, ratios, color="#3b7ea1")
    axes.bar_label(bars, fmt="%.2f", padding=3)
    axes.axvline(1, color="black", linewidth=1)
    axes.invert_yaxis()
    axes.set_xlabel("time of a training step relative to torch eager (batch 16, one thread; less is faster)")
    axes.set_title(f"{report['machine']['processor']}; geometric mean {report['geomean_ratio_eager']:.2f}", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=130)


if __name__ == "__main__":
    main()
