"""
Task and plan as pure functions.

Weights are arguments, so a program holds none: it is made once per plan and serves every version. All parameters go in
full; only trained ones get a gradient, in compact form. Because autograd is asked for those gradients alone,
layers below the first trained one run forward only.

Buffers that the forward pass moves, such as the running statistics of batch normalisation in training mode, are handed
out with the gradients: as what they became less by.
"""

from __future__ import annotations

import contextlib
import copy
import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from mobile_sdk.layout import Slice

from ..batches import Batch, run, value_of
from ..eager.draws import Draw, Draws
from ..eager.plain import in_float64, plain
from ..errors import ExportError
from ..plan import Plan
from ..probe import evaluating
from ..task import Task
from .statistics import Statistics
from .tracing import named_modules

__all__ = ["Step"]


class Step:
    """
    The three methods of a program.

    Batches are tensors, or :class:`~exporters.batches.Several` where the task takes more than one.

    ``order`` names the weights in the order in which ``train_step`` takes them: trained ones, then
    frozen ones. ``evaluate`` and ``predict`` take them in layout order. What the plan bakes is in neither: it is a
    constant, with the value that the model has.

    Args:
        task: what to learn.
        plan: what is trained; what the task keeps on devices is added to it.

    Raises:
        ExportError: if the plan trains a buffer, or nothing but what the task keeps on devices.

    """

    def __init__(self, task: Task, plan: Plan) -> None:
        learned = set(task.parameter_names())
        untrainable = [name for name in plan.subset if name not in learned and name not in task.moved]
        if untrainable:
            raise ExportError(f"the plan trains {untrainable[0]!r}, {_why_not(task, untrainable[0])}")
        plan = plan.with_local(task).with_moved(task)
        if set(plan.subset) <= set(task.local):
            raise ExportError(
                f"the plan trains only what the task keeps on devices ({', '.join(task.local)}): add more"
            )
        self._precision: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext
        self.task = task
        self.plan = plan
        self.trained = list(plan.subset)
        self.moved = frozenset(task.moved)
        self.names = [p.name for p in task.layout if p.name not in plan.baked]
        self.order = self.trained + [n for n in self.names if n not in plan.subset]
        state = task.model.state_dict()
        self.constants = {name: state[name].detach() for name in plan.baked}

    def in_float64(self) -> Step:
        """The same step in double precision: the reference for verification."""
        step = copy.copy(self)
        step._precision = in_float64
        return step

    @functools.cached_property
    def draws(self) -> list[Draw]:
        """What ``train_step`` takes of random numbers, in the order of the call."""
        named = [*self.task.model.named_parameters(), *self.task.model.named_buffers()]
        state = {name: tensor.detach().clone() for name, tensor in named}
        x, y = self.task.batch(self.plan.micro_batch)
        draws = Draws()
        with torch.no_grad(), named_modules(self.task.model), plain(), draws.active():
            self._loss(self._output(state, x), y)
        return draws.found

    def _output(self, state: dict[str, Tensor], x: Batch) -> Tensor:
        # Whatever the model keeps beside its state is copied, so that it stays as it is.
        others = {name: b.clone() for name, b in self.task.model.named_buffers() if name not in state}
        output: Tensor = run(self.task.model, {**others, **state}, x)
        return output

    def _loss(self, output: Tensor, y: Batch) -> Tensor:
        return self.task.loss(output, value_of(y))

    def train_step(self, x: Batch, y: Batch, sample_weight: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
        """
        ``(loss_sum, *metric_sums, *gradients)`` of ``sum(sample_weight * loss)``.

        ``inputs`` are the weights in :attr:`order`, then those of :attr:`draws`; without them dropout is off.
        Among the gradients, a buffer that the step moves has what it becomes less by.

        Args:
            x: inputs, shape ``(n, *contract.x_shape)``.
            y: targets, shape ``(n, *contract.y_shape)``.
            sample_weight: float32, shape ``(n,)``.
            inputs: see above.

        Returns:
            Scalars for loss and metrics, then a gradient of compact shape for each trained parameter.

        Raises:
            ExportError: if a trained parameter has no influence on the loss.

        """
        with self._precision(), plain():
            return self._train_step(x, y, sample_weight, *inputs)

    def _train_step(self, x: Batch, y: Batch, sample_weight: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
        weights, drawn = inputs[: len(self.order)], inputs[len(self.order) :]
        given = dict(zip(self.order, weights, strict=True))
        trained = [
            given[name].clone() if name in self.moved else given[name].detach().requires_grad_(True)
            for name in self.trained
        ]
        learned = [w for name, w in zip(self.trained, trained, strict=True) if name not in self.moved]
        # Batch normalisation in training mode writes to its running statistics, which are the caller's.
        frozen = [w.clone() for w in weights[len(self.trained) :]]
        state = {**self.constants, **dict(zip(self.order, [*trained, *frozen], strict=True))}
        with Draws(drawn).active(), Statistics() if self.moved else contextlib.nullcontext():
            output = self._output(state, x)
            loss_sum = (self._loss(output, y) * sample_weight).sum()
        gradients = iter(torch.autograd.grad(loss_sum, learned, allow_unused=True))
        compact = []
        for name in self.trained:
            if name in self.moved:
                compact.append((given[name] - state[name]).detach())
                continue
            gradient = next(gradients)
            if gradient is None:
                raise ExportError(f"the parameter {name!r} has no influence on the loss; leave it out of the plan")
            compact.append(_part(gradient, self.plan.subset[name]))
        return (loss_sum.detach(), *self._metrics(output.detach(), y, sample_weight), *compact)

    def evaluate(self, x: Batch, y: Batch, sample_weight: Tensor, *weights: Tensor) -> tuple[Tensor, ...]:
        """
        ``(loss_sum, *metric_sums)``.

        Args:
            x: inputs, shape ``(n, *contract.x_shape)``.
            y: targets, shape ``(n, *contract.y_shape)``.
            sample_weight: float32, shape ``(n,)``.
            weights: of every parameter, in full shape, in the order of :attr:`names`.

        Returns:
            Scalars.

        """
        return self.evaluate_and_predict(x, y, sample_weight, *weights)[:-1]

    def evaluate_and_predict(self, x: Batch, y: Batch, sample_weight: Tensor, *weights: Tensor) -> tuple[Tensor, ...]:
        """
        ``(loss_sum, *metric_sums, output)``.

        Args:
            x: inputs, shape ``(n, *contract.x_shape)``.
            y: targets, shape ``(n, *contract.y_shape)``.
            sample_weight: float32, shape ``(n,)``.
            weights: of every parameter, in full shape, in the order of :attr:`names`.

        Returns:
            Scalars, and the output of shape ``(n, ...)``.

        """
        output = self.predict(x, *weights)
        with torch.no_grad(), self._precision(), plain(), Draws().active():
            loss_sum = (self._loss(output, y) * sample_weight).sum()
            return (loss_sum, *self._metrics(output, y, sample_weight), output)

    def predict(self, x: Batch, *weights: Tensor) -> Tensor:
        """
        The model's output.

        Args:
            x: inputs, shape ``(n, *contract.x_shape)``.
            weights: of every parameter, in full shape, in the order of :attr:`names`.

        Returns:
            Shape ``(n, ...)``.

        """
        with torch.no_grad(), evaluating(self.task.model), self._precision(), plain(), Draws().active():
            state = {**self.constants, **dict(zip(self.names, weights, strict=True))}
            return self._output(state, x)

    def _metrics(self, output: Tensor, y: Batch, sample_weight: Tensor) -> list[Tensor]:
        values: Sequence[Callable[[Any, Any], Tensor]] = list(self.task.metrics.values())
        return [(metric(output, value_of(y)).to(sample_weight.dtype) * sample_weight).sum() for metric in values]


def _why_not(task: Task, name: str) -> str:
    parameter = dict(task.model.named_parameters()).get(name)
    if parameter is None:
        return "which is a buffer"
    return "whose requires_grad is False" if not parameter.requires_grad else "on which the loss does not depend"


def _part(gradient: Tensor, part: Slice | None) -> Tensor:
    if part is None:
        return gradient
    return torch.index_select(gradient, part.axis, torch.tensor(part.indices))
