"""What a user gives: a model, a loss per sample, an example batch, and what the data look like."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor, nn

from mobile_sdk.layout import Layout, Parameter, Vector
from mobile_sdk.manifest import DTYPES, InputContract
from mobile_sdk.references import load_attribute

from .errors import TaskError
from .fold_batch_norm import fold_batch_norm as folded
from .user_code import call_users

__all__ = ["Samples", "Task", "load_samples", "load_task"]

PerSample = Callable[[Tensor, Tensor], Tensor]
Samples = tuple[npt.NDArray[Any], npt.NDArray[Any]]


class Task:
    """
    Something to learn.

    The training step sees the model's modules in the mode that they are in: a ``BatchNorm`` in eval mode uses its
    running statistics, in training mode those of its micro-batch; either way running statistics are frozen weights,
    which do not move. Evaluation and prediction see all modules in eval mode.

    Args:
        model: maps x, shape (n, ...), to an output whose first axis is n. All floating state is float32.
        loss: ``loss(output, y)`` gives one float32 per sample, shape (n,).
        example_x: a batch of inputs, tensor or array of shape (n, ...).
        example_y: the batch's targets, shape (n, ...).
        name: what to call it; the model's class name where empty.
        metrics: name -> ``function(output, y)``: one number per sample, shape (n,), such as 1 where it was right.
        held_out: gives the samples ``(x, y)`` that central evaluation uses.
        proxy: gives samples of your own or public data, on which planning finds out what is worth training.
        micro_batch: samples per training step; the example's where :obj:`None`.
        range: closed interval of valid x.
        normalisation: how raw samples became x, in words.
        labels: names of the classes, where y is a class index.
        local: parameters, or modules with all of theirs, that every device trains for itself and keeps: they are never
            sent, and the global model has them as they are now.
        fold_batch_norm: train a copy of the model in which convolutions and linear layers have taken over the frozen
            batch normalisation behind them; see :func:`exporters.fold_batch_norm.fold_batch_norm`.

    Raises:
        TaskError: if model, loss, metrics and example do not go together.

    """

    def __init__(
        self,
        model: nn.Module,
        loss: PerSample,
        example_x: Tensor | npt.NDArray[Any],
        example_y: Tensor | npt.NDArray[Any],
        *,
        name: str = "",
        metrics: Mapping[str, PerSample] | None = None,
        held_out: Callable[[], Samples] | None = None,
        proxy: Callable[[], Samples] | None = None,
        micro_batch: int | None = None,
        range: tuple[float, float] | None = None,
        normalisation: str = "",
        labels: Sequence[str] = (),
        local: Sequence[str] = (),
        fold_batch_norm: bool = False,
    ) -> None:
        self.loss = loss
        self.example_x = torch.as_tensor(example_x).detach()
        self.example_y = torch.as_tensor(example_y).detach()
        self.model = model = folded(model, self.example_x) if fold_batch_norm else model
        self.name = name or type(model).__name__
        self.metrics = dict(metrics or {})
        self.held_out = held_out
        self.proxy = proxy
        self._check_example()
        self.micro_batch = len(self.example_x) if micro_batch is None else micro_batch
        if self.micro_batch < 1:
            raise TaskError(f"the micro-batch of task {self.name!r} is {micro_batch}; it must be at least 1")
        self.layout = _layout(model)
        self.local = self._local(local)
        self.contract = InputContract(
            x_shape=tuple(self.example_x.shape[1:]),
            x_dtype=_dtype(self.example_x, "example_x"),
            y_shape=tuple(self.example_y.shape[1:]),
            y_dtype=_dtype(self.example_y, "example_y"),
            range=None if range is None else (float(range[0]), float(range[1])),
            normalisation=normalisation,
            labels=tuple(labels),
        )
        self._check_functions()

    def _check_example(self) -> None:
        for name, example in (("example_x", self.example_x), ("example_y", self.example_y)):
            if example.dim() < 1 or len(example) < 1:
                raise TaskError(f"{name} of shape {tuple(example.shape)} is no batch; its first axis counts samples")
        if len(self.example_x) != len(self.example_y):
            raise TaskError(f"example_x has {len(self.example_x)} samples and example_y {len(self.example_y)}")

    def _check_functions(self) -> None:
        n = len(self.example_x)
        try:
            with torch.no_grad():
                output = self.model(self.example_x)
        except Exception as error:
            raise TaskError(f"the model fails on the example batch: {type(error).__name__}: {error}") from error
        if not isinstance(output, Tensor) or output.dim() < 1 or len(output) != n:
            what = f"shape {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
            raise TaskError(f"the model must give one tensor with {n} samples on its first axis, not {what}")
        for name, function in {"the loss": self.loss, **{f"metric {m!r}": f for m, f in self.metrics.items()}}.items():
            try:
                with torch.no_grad():
                    values = function(output, self.example_y)
            except Exception as error:
                raise TaskError(f"{name} fails on the example batch: {type(error).__name__}: {error}") from error
            if not isinstance(values, Tensor) or tuple(values.shape) != (n,):
                what = f"shape {tuple(values.shape)}" if isinstance(values, Tensor) else type(values).__name__
                hint = '; use reduction="none"' if name == "the loss" else ""
                raise TaskError(f"{name} must give one value per sample, shape ({n},), not {what}{hint}")
            if name == "the loss" and values.dtype != torch.float32:
                raise TaskError(f"the loss must be float32, not {values.dtype}")

    def _local(self, wanted: Sequence[str]) -> tuple[str, ...]:
        """Names of what stays on devices, in layout order."""
        trainable = self.parameter_names()
        chosen = set()
        for name in wanted:
            found = {n for n in trainable if n == name or n.startswith(f"{name}.")}
            if not found:
                raise TaskError(f"local names {name!r}, which is no parameter of the model and no module with any")
            chosen |= found
        if chosen and len(chosen) == len(trainable):
            raise TaskError("every parameter is local, so that there is nothing to learn together: leave some out")
        return tuple(n for n in trainable if n in chosen)

    def batch(self, n: int) -> tuple[Tensor, Tensor]:
        """
        ``n`` samples, the example over and over.

        Returns:
            x of shape ``(n, *x_shape)``, y of shape ``(n, *y_shape)``.

        """
        index = torch.arange(n) % len(self.example_x)
        return self.example_x[index], self.example_y[index]

    def initial_weights(self) -> Vector:
        """The model's parameters and buffers as they are now: one float32 vector in layout order."""
        state = self.model.state_dict()
        return self.layout.flatten({p.name: state[p.name].detach().cpu().numpy() for p in self.layout})

    def parameter_names(self) -> list[str]:
        """Names of what can be trained, in layout order: parameters, not buffers."""
        trainable = {name for name, _ in self.model.named_parameters()}
        return [p.name for p in self.layout if p.name in trainable]


def _dtype(example: Tensor, name: str) -> str:
    dtype = str(example.dtype).removeprefix("torch.")
    if dtype not in DTYPES:
        raise TaskError(f"{name} has the dtype {dtype}; a device knows {', '.join(DTYPES)}")
    return dtype


def _layout(model: nn.Module) -> Layout:
    """Parameters and floating buffers in the order of ``state_dict``; counters (``num_batches_tracked``) stay out."""
    parameters = []
    owners: dict[int, str] = {}
    named = dict(model.named_parameters(remove_duplicate=False))
    for name, tensor in model.state_dict().items():
        if name not in named and not tensor.is_floating_point():
            if tensor.dim() == 0:
                continue  # a counter, which no forward pass in use reads
            raise TaskError(
                f"buffer {name!r} has the dtype {tensor.dtype}; register it with persistent=False to make it a constant"
            )
        if tensor.dtype != torch.float32:
            raise TaskError(f"{name!r} has the dtype {tensor.dtype}; every weight must be float32")
        if tensor.numel() == 0:
            raise TaskError(f"{name!r} of shape {tuple(tensor.shape)} has no elements")
        first = owners.setdefault(tensor.data_ptr(), name)
        if first != name and name in named:
            raise TaskError(f"{name!r} and {first!r} are the same tensor; tied weights cannot be trained on a device")
        parameters.append(Parameter(name, tuple(tensor.shape)))
    if not named:
        raise TaskError(f"the model {type(model).__name__} has no parameters")
    return Layout(parameters)


def load_task(reference: str) -> Task:
    """
    The task at ``"package.module:attribute"``: a :class:`Task`, or a function without arguments that makes one.

    Raises:
        TaskError: if there is none.

    """
    found = _named(reference, "task")
    task = call_users(found, reference) if callable(found) and not isinstance(found, Task) else found
    if not isinstance(task, Task):
        raise TaskError(f"{reference!r} is a {type(task).__name__}, not a Task")
    return task


def load_samples(reference: str) -> Samples:
    """
    The samples ``(x, y)`` of the function at ``"package.module:function"``.

    Raises:
        TaskError: if there is none.

    """
    found = _named(reference, "data")
    if not callable(found):
        raise TaskError(f"{reference!r} is a {type(found).__name__}, not a function that gives samples (x, y)")
    samples = call_users(found, reference)
    if not isinstance(samples, tuple) or len(samples) != 2:
        raise TaskError(f"{reference!r} gives a {type(samples).__name__}, not samples (x, y)")
    return samples


def _named(reference: str, what: str) -> Any:
    try:
        return load_attribute(reference, what)
    except ValueError as error:
        raise TaskError(str(error)) from error
