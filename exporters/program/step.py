"""
Task and plan as pure functions.

Weights are arguments, so a program holds none: it is made once per plan and serves every version. All parameters go in
full; only trained ones get a gradient, in compact form. Because autograd is asked for those gradients alone,
layers below the first trained one run forward only.

Batch normalisation in training mode normalises with the micro-batch's own statistics; its running ones are frozen
weights, which evaluation reads and no step changes.
"""

from __future__ import annotations

import contextlib
import copy
import functools
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call

from mobile_sdk.layout import Slice

from ..errors import ExportError
from ..plan import Plan
from ..task import Task
from .dropout import Dropout, Masks
from .tracing import named_modules

__all__ = ["Step"]


class Step:
    """
    The three methods of a program.

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
        untrainable = [name for name in plan.subset if name not in set(task.parameter_names())]
        if untrainable:
            raise ExportError(f"the plan trains {untrainable[0]!r}, which is a buffer")
        plan = plan.with_local(task)
        if set(plan.subset) <= set(task.local):
            raise ExportError(
                f"the plan trains only what the task keeps on devices ({', '.join(task.local)}): add more"
            )
        self.task = task
        self.plan = plan
        self.trained = list(plan.subset)
        self.names = [p.name for p in task.layout if p.name not in plan.baked]
        self.order = self.trained + [n for n in self.names if n not in plan.subset]
        state = task.model.state_dict()
        self.constants = {name: state[name].detach() for name in plan.baked}

    def in_float64(self) -> Step:
        """The same step over a copy of the model in double precision: the reference for verification."""
        task = copy.copy(self.task)
        task.model = copy.deepcopy(task.model).double()
        return Step(task, self.plan)

    @functools.cached_property
    def dropouts(self) -> list[Dropout]:
        """The masks that ``train_step`` takes, in the order of the call."""
        if not any(module.training for module in self.task.model.modules()):
            return []
        state = {name: tensor.clone() for name, tensor in self.task.model.state_dict().items()}
        x, _ = self.task.batch(self.plan.micro_batch)
        with torch.no_grad(), named_modules(self.task.model), Masks() as masks:
            functional_call(self.task.model, state, (x,))
        found: list[Dropout] = masks.found
        return found

    def train_step(self, x: Tensor, y: Tensor, sample_weight: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
        """
        ``(loss_sum, *metric_sums, *gradients)`` of ``sum(sample_weight * loss)``.

        ``inputs`` are the weights in :attr:`order`, then the masks of :attr:`dropouts`; without masks dropout is off.

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
        weights, masks = inputs[: len(self.order)], inputs[len(self.order) :]
        trained = [w.detach().requires_grad_(True) for w in weights[: len(self.trained)]]
        # Batch normalisation in training mode writes to its running statistics, which are the caller's.
        frozen = [w.clone() for w in weights[len(self.trained) :]]
        state = {**self.constants, **dict(zip(self.order, [*trained, *frozen], strict=True))}
        with Masks(masks):
            output = functional_call(self.task.model, state, (x,))
        loss_sum = (self.task.loss(output, y) * sample_weight).sum()
        gradients = torch.autograd.grad(loss_sum, trained, allow_unused=True)
        compact = []
        for name, gradient in zip(self.trained, gradients, strict=True):
            if gradient is None:
                raise ExportError(f"the parameter {name!r} has no influence on the loss; leave it out of the plan")
            compact.append(_part(gradient, self.plan.subset[name]))
        return (loss_sum.detach(), *self._metrics(output.detach(), y, sample_weight), *compact)

    def evaluate(self, x: Tensor, y: Tensor, sample_weight: Tensor, *weights: Tensor) -> tuple[Tensor, ...]:
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

    def evaluate_and_predict(self, x: Tensor, y: Tensor, sample_weight: Tensor, *weights: Tensor) -> tuple[Tensor, ...]:
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
        loss_sum = (self.task.loss(output, y) * sample_weight).sum()
        return (loss_sum, *self._metrics(output, y, sample_weight), output)

    def predict(self, x: Tensor, *weights: Tensor) -> Tensor:
        """
        The model's output.

        Args:
            x: inputs, shape ``(n, *contract.x_shape)``.
            weights: of every parameter, in full shape, in the order of :attr:`names`.

        Returns:
            Shape ``(n, ...)``.

        """
        with torch.no_grad(), _eval_mode(self.task.model):
            state = {**self.constants, **dict(zip(self.names, weights, strict=True))}
            output: Tensor = functional_call(self.task.model, state, (x,))
        return output

    def _metrics(self, output: Tensor, y: Tensor, sample_weight: Tensor) -> list[Tensor]:
        values: Sequence[Callable[[Tensor, Tensor], Tensor]] = list(self.task.metrics.values())
        return [(metric(output, y).to(sample_weight.dtype) * sample_weight).sum() for metric in values]


def _part(gradient: Tensor, part: Slice | None) -> Tensor:
    if part is None:
        return gradient
    return torch.index_select(gradient, part.axis, torch.tensor(part.indices))


@contextlib.contextmanager
def _eval_mode(model: nn.Module) -> Iterator[None]:
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training
