"""
The fastest lowering of a plan that fits a budget.

Tiles are as fast as one product over the whole micro-batch, or faster, so every layer starts as ``tiled``. Where the
columns of a single sample are larger than a tile, a layer can be ``shifted`` instead: it takes about a fifth longer and
unrolls nothing. ``choose`` gives that up where it saves the most, layer by layer, and only as far as it must.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import torch
from torch import nn

from mobile_sdk.sizes import format_bytes

from ..batches import call
from ..errors import BudgetError
from ..lowering.rewrites.convolution import TILE
from ..memory.predict import predict
from ..plan import Plan
from ..task import Task
from .baking import Memory

__all__ = ["choose"]


def _predicted(task: Task, plan: Plan) -> int:
    return predict(task, plan).total_bytes


def choose(task: Task, plan: Plan, budget: int, *, memory: Memory = _predicted) -> Plan:
    """
    ``plan``, each layer lowered so that a training step fits ``budget``.

    Args:
        task: what to learn.
        plan: what to train; what it says of lowering is where the choice starts.
        budget: bytes, as :func:`~exporters.memory.measure.measure` counts them.
        memory: what a plan takes, in bytes; by default as predicted, in about a second.

    Raises:
        BudgetError: if no choice fits; it names the smallest budget found.
        ExportError: if the task cannot be lowered.

    """
    best, least = plan, memory(task, plan)
    for module in _unrolled(task, plan):
        if least <= budget:
            break
        candidate = dataclasses.replace(best, lowering={**best.lowering, module: "shifted"})
        needs = memory(task, candidate)
        if needs < least:
            best, least = candidate, needs
    if least > budget:
        raise BudgetError(
            f"no lowering of the plan fits {format_bytes(budget)}: the leanest takes {format_bytes(least)}", least
        )
    return best


def _unrolled(task: Task, plan: Plan) -> list[str]:
    """Modules of convolutions whose columns of one sample exceed a tile, the largest first."""
    sizes: dict[str, int] = {}

    def note(path: str) -> Callable[[nn.Module, tuple[torch.Tensor, ...], torch.Tensor], None]:
        def hook(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            assert isinstance(module, nn.Conv1d | nn.Conv2d)
            taps = math.prod(module.kernel_size)
            if module.groups == 1 and taps > 1:
                forward = output[0, 0].numel() * taps * module.in_channels
                backward = inputs[0][0, 0].numel() * taps * module.out_channels
                sizes[path] = 4 * max(forward, backward)

        return hook

    handles = [
        module.register_forward_hook(note(path))
        for path, module in task.model.named_modules()
        if isinstance(module, nn.Conv1d | nn.Conv2d) and f"{path}.weight" not in plan.baked
    ]
    try:
        with torch.no_grad():
            call(task.model, task.example_x[: task.least_micro_batch])
    finally:
        for handle in handles:
            handle.remove()
    large = [path for path, size in sizes.items() if size > TILE and plan.lowering.get(path) != "shifted"]
    return sorted(large, key=lambda path: -sizes[path])
