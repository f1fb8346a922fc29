"""
Frozen weights on a coarse grid: they travel in a byte, or less, instead of four.

Most of what a device downloads first are weights that no plan trains, inside its program or beside it. Rounded, before
anything is exported, to ``2**bits`` steps to the largest weight of an output channel (:mod:`mobile_sdk.payload.grid`),
they stay exact float32 numbers for everything that computes with them, and pack into about ``bits`` bits each. The
trained layers learn on what the rounded ones give.

Batch normalisation that is folded into a convolution when a program is lowered takes its weights off the grid again;
with ``Task(fold_batch_norm=True)`` it is folded before.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch

from mobile_sdk.payload.grid import Grid

from ..plan import Plan
from ..task import Task

__all__ = ["frozen_matrices", "round_weights"]


def frozen_matrices(task: Task, plans: Iterable[Plan]) -> list[str]:
    """
    Names of what may be rounded, in layout order: parameters of two axes or more that no plan trains.

    Biases, norms and statistics are few, and lie too far apart for one grid.
    """
    trained = {name for plan in plans for name in plan.subset} | set(task.local)
    parameters = set(task.parameter_names()) - trained
    return [p.name for p in task.layout if p.name in parameters and len(p.shape) > 1]


def round_weights(task: Task, names: Iterable[str], bits: int) -> Task:
    """
    The task with the weights of ``names`` on a grid; rounding again changes nothing.

    Args:
        task: what to learn; it stays as it is.
        names: of parameters with two axes or more; none where plans train a part of each.
        bits: steps to the largest weight of an output channel, as a power of two.

    """
    result = copy.copy(task)
    result.model = copy.deepcopy(task.model)
    parameters = dict(result.model.named_parameters())
    arrays = {name: parameters[name].detach().numpy() for name in names}
    if not arrays:
        return result
    grid = Grid.of(arrays, bits)
    # Clip to ±(2^bits - 1): rounding the largest weight up to 2^bits would move it to the next exponent, where the
    # grid step doubles.
    largest = 2**bits - 1
    for name, array in arrays.items():
        steps = grid.integers(name, grid.snap(name, array)).clip(-largest, largest)
        parameters[name].data = torch.from_numpy(grid.weights(name, steps))
    return result
