"""
A learning rate for devices, from a short look at the task: for whoever sets none.

Which rate a net learns with depends on its scale, and differs by two orders of magnitude between small tasks. So every
rate of a grid trains the model for as many steps from where it begins (a range test: Smith 2017,
https://arxiv.org/abs/1506.01186, step by step instead of in one sweep), and half of the one that fits its samples best
is taken: updates of devices are stale, and of uneven data.

A rate that leaves a net which gives the same for every sample fits nothing, however small its loss: its units have died
(of targets in the hundreds, say), and it has learned their mean, which is sooner done than to learn anything of them.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import math
import time

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ..batches import Batch, arguments, call, tensors_of, value_of
from ..probe import evaluating
from ..task import Task

__all__ = ["find_learning_rate"]

log = logging.getLogger(__name__)

# Rates that are tried, each twice the one before: of plain descent, and of Adam, whose steps are as long as the rate.
SGD_RATES = tuple(0.0125 * 2**n for n in range(8))
ADAM_RATES = tuple(0.0002 * 2**n for n in range(8))
# Smaller ones follow while one of the two smallest fits best, or the smallest does harm: targets in the hundreds, as of
# a regression that nobody has scaled, want a thousandth. So many halvings at the most.
MOST_HALVINGS = 20
STEPS = 100
# Samples that are looked at; more than the steps see are not needed.
SAMPLES = 800
# With fewer the fit says nothing.
FEWEST_SAMPLES = 64
# A forward pass of more takes too long: some 30 seconds for all rates and steps on one processor.
MOST_OPERATIONS = 4e8
# No run waits longer for a rate, whatever its model.
LONGEST_SECONDS = 120.0
# What float32 leaves of outputs that are the same, as a part of them.
ROUNDING = 1e-6


def find_learning_rate(
    task: Task,
    samples: tuple[Batch, Batch],
    *,
    batch_size: int,
    optimiser: str = "sgd",
    momentum: float = 0.0,
) -> float | None:
    """
    A rate at which devices may train the task.

    Args:
        task: model and loss; not changed.
        samples: x of shape ``(n, *x_shape)`` and y of shape ``(n, *y_shape)``; like those of devices.
        batch_size: of a step.
        optimiser: ``sgd``, ``adam`` or ``adamw``.
        momentum: of ``sgd``.

    Returns:
        The rate; none if there are too few samples, the model is too large for a short look, or cannot take a batch of
        another size than the task's, or fits its samples at no rate.

    """
    try:
        return _find(task, samples, batch_size, optimiser, momentum)
    except Exception as error:  # the user's own code runs here, and a run can begin without a rate
        log.debug("no learning rate: %s", error)
        return None


def _find(task: Task, samples: tuple[Batch, Batch], batch_size: int, optimiser: str, momentum: float) -> float | None:
    x, y = samples
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))[:SAMPLES]
    x, y = x[order], y[order]
    batch_size = min(batch_size, len(x))
    if len(x) < FEWEST_SAMPLES or _operations(task, x[:batch_size]) > MOST_OPERATIONS:
        return None
    with torch.random.fork_rng(devices=[]):
        before = _loss(task, task.model, x, y)
        fits: dict[float, float] = {}
        end = time.monotonic() + LONGEST_SECONDS
        rates = list(SGD_RATES if optimiser == "sgd" else ADAM_RATES)
        most = len(rates) + MOST_HALVINGS
        while rates:
            if time.monotonic() > end:  # of what it takes not everything is counted: recurrence is not
                return None
            torch.manual_seed(0)  # of dropout
            rate = rates.pop(0)
            fits[rate] = _fit(task, x, y, batch_size, optimiser, rate, momentum)
            smallest = min(fits)
            too_large = fits[smallest] > before or _best(fits, before) in sorted(fits)[:2]
            if not rates and too_large and len(fits) < most:
                rates.append(smallest / 2)
    best = _best(fits, before)
    return None if best is None else best / 2


def _best(fits: dict[float, float], before: float) -> float | None:
    """The rate with the least loss, if that is less than before training."""
    rate = min(fits, key=lambda rate: fits[rate])
    return rate if fits[rate] < before else None


def _operations(task: Task, x: Batch) -> float:
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        call(copy.deepcopy(task.model).eval(), x)
    return float(counter.get_total_flops())


def _fit(task: Task, x: Batch, y: Batch, batch_size: int, optimiser: str, rate: float, momentum: float) -> float:
    """The mean loss over the samples after some steps; infinite if the net was lost on the way."""
    model = copy.deepcopy(task.model)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    step = torch.optim.SGD(trained, rate, momentum) if optimiser == "sgd" else torch.optim.Adam(trained, rate)
    generator = torch.Generator().manual_seed(1)
    left = torch.empty(0, dtype=torch.int64)
    for _ in range(STEPS):
        if len(left) < batch_size:
            left = torch.randperm(len(x), generator=generator)
        batch, left = left[:batch_size], left[batch_size:]
        step.zero_grad()
        inputs, named = arguments(x[batch])
        loss = task.loss(model(*inputs, **named), value_of(y[batch])).mean()
        if not math.isfinite(loss.item()):
            return math.inf
        loss.backward()  # type: ignore[no-untyped-call]
        step.step()
    return math.inf if _has_died(task, model, x) else _loss(task, model, x, y)


def _has_died(task: Task, model: nn.Module, x: Batch) -> bool:
    """Whether the net gives the same for samples that differ."""
    x = x[:FEWEST_SAMPLES]
    if not any(_differ(tensor) for tensor in tensors_of(x)):
        return False
    with torch.no_grad(), evaluating(model) if task.whole else contextlib.nullcontext():
        return not _differ(call(model, x))


def _differ(samples: torch.Tensor) -> bool:
    """Whether they differ by more than rounding."""
    samples = samples.float()
    return bool((samples - samples[:1]).abs().max() > ROUNDING * samples.abs().max())


def _loss(task: Task, model: nn.Module, x: Batch, y: Batch) -> float:
    # Where samples see each other, the last few may be too few for statistics of their own.
    with torch.no_grad(), evaluating(model) if task.whole else contextlib.nullcontext():
        parts = [task.loss(call(model, x[i : i + 64]), value_of(y[i : i + 64])).sum() for i in range(0, len(x), 64)]
    mean = float(torch.stack(parts).sum()) / len(x)
    return mean if math.isfinite(mean) else math.inf
