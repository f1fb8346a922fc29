"""
Fine-tuning of a plan in torch, on the operator's own data: how selectors learn what a layer is worth.

The same subset is trained as on a device: whole parameters, or the kept channels alone.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from mobile_sdk.layout import Subset

from ..batches import Batch, arguments, call, value_of
from ..task import Task

__all__ = ["FineTuning", "Outcome", "assess", "fine_tune"]

_ASSESSED = 256  # samples per forward pass


@dataclasses.dataclass(frozen=True)
class FineTuning:
    """
    How to fine-tune: SGD with momentum, samples drawn without replacement, epoch after epoch.

    ``decay`` lets the learning rate fall to zero along a half cosine.
    """

    steps: int = 40
    batch: int = 32
    learning_rate: float = 0.02
    momentum: float = 0.9
    decay: bool = True
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a model reaches on samples: the mean loss, and the mean of each of the task's metrics."""

    loss: float
    metrics: dict[str, float]

    @property
    def merit(self) -> float:
        """What is to be made large: the task's first metric, or the loss, negative, of a task without one."""
        return next(iter(self.metrics.values()), -self.loss)


TensorSamples = tuple[Batch, Batch]


def fine_tune(
    task: Task,
    subset: Subset | None,
    train: TensorSamples,
    test: TensorSamples,
    settings: FineTuning,
    model: nn.Module | None = None,
) -> Outcome:
    """
    Train ``subset`` of a copy of the task's model on ``train`` and say what it reaches on ``test``.

    Args:
        task: model, loss and metrics; its modules stay in the mode that they are in.
        subset: what is trained; nothing for :obj:`None`.
        train: x of shape (n, ...) and y of shape (n, ...).
        test: likewise.
        settings: how long and how fast.
        model: a model to go on from, which is changed, instead of a copy of the task's.

    """
    model = copy.deepcopy(task.model) if model is None else model
    # Images: torch convolves them faster with channels last, depthwise by half. But its group normalisation writes
    # through a null pointer there, in 2.13, where the gradient of its input is not asked for.
    if (
        isinstance(train[0], Tensor)
        and train[0].dim() == 4
        and not any(isinstance(module, nn.GroupNorm) for module in model.modules())
    ):
        for parameter in model.parameters():
            if parameter.dim() == 4:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
        train, test = _channels_last(train), _channels_last(test)
    if subset is not None:
        _train(task, model, subset, train, settings)
    return assess(task, model, test)


def _channels_last(samples: TensorSamples) -> TensorSamples:
    x, y = samples
    return x.contiguous(memory_format=torch.channels_last) if isinstance(x, Tensor) else x, y


def assess(task: Task, model: nn.Module, samples: TensorSamples) -> Outcome:
    """
    Mean loss and metrics of ``model`` in eval mode.

    Args:
        task: gives loss and metrics.
        model: any weights.
        samples: x of shape ``(n, *x_shape)``, y of shape ``(n, *y_shape)``.

    """
    x, y = samples
    modes = {module: module.training for module in model.modules()}
    model.eval()
    sums = torch.zeros(1 + len(task.metrics), dtype=torch.float64)
    with torch.no_grad():
        for i in range(0, len(x), _ASSESSED):
            part = y[i : i + _ASSESSED]
            output = call(model, x[i : i + _ASSESSED])
            values = [function(output, value_of(part)) for function in (task.loss, *task.metrics.values())]
            sums += torch.stack([v.double().sum() for v in values])
    for module, training in modes.items():
        module.training = training
    means = (sums / len(x)).tolist()
    return Outcome(means[0], dict(zip(task.metrics, means[1:], strict=True)))


def _train(task: Task, model: nn.Module, subset: Subset, train: TensorSamples, settings: FineTuning) -> None:
    parameters = dict(model.named_parameters())
    for name, parameter in parameters.items():
        parameter.requires_grad_(name in subset)
    # Buffers that the forward pass moves do so by themselves.
    names = [name for name in subset if name in parameters]
    trained = [parameters[name] for name in names]
    kept = [_kept(subset, name) for name in names]
    moments = [torch.zeros(subset.shape(name)) for name in names]
    x, y = train
    for step, index in enumerate(_batches(len(x), settings)):
        rate = settings.learning_rate
        if settings.decay:
            rate *= 0.5 * (1 + np.cos(np.pi * step / settings.steps))
        args, kwargs = arguments(x[index])
        loss = task.loss(model(*args, **kwargs), value_of(y[index])).mean()
        gradients = torch.autograd.grad(loss, trained)
        with torch.no_grad():
            for parameter, gradient, part, moment in zip(trained, gradients, kept, moments, strict=True):
                if part is None:
                    moment.mul_(settings.momentum).add_(gradient)
                    parameter.sub_(moment, alpha=rate)
                else:
                    moment.mul_(settings.momentum).add_(gradient.index_select(*part))
                    parameter.index_add_(*part, moment, alpha=-rate)


def _kept(subset: Subset, name: str) -> tuple[int, Tensor] | None:
    part = subset[name]
    return None if part is None else (part.axis, torch.tensor(part.indices))


def _batches(n: int, settings: FineTuning) -> Iterator[Tensor]:
    """Indices of each step's samples, the same for every subset; a last short batch of an epoch is left out."""
    random = torch.Generator().manual_seed(settings.seed)
    size = min(settings.batch, n)
    left = torch.empty(0, dtype=torch.int64)
    for _ in range(settings.steps):
        if len(left) < size:
            left = torch.randperm(n, generator=random)
        yield left[:size]
        left = left[size:]
