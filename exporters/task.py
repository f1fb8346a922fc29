"""What a user gives: a model, a loss per sample, an example batch, and what the data look like."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import numpy.typing as npt
import torch
from torch import Tensor, nn

from mobile_sdk.layout import Layout, Parameter, Vector
from mobile_sdk.manifest import DTYPES, SEVERAL, Bound, InputContract, Part
from mobile_sdk.references import load_attribute

from .batches import Batch, Several, as_batch, like, names_of, tensors_of
from .eager.plain import quiet_step
from .errors import TaskError
from .fold_batch_norm import fold_batch_norm as folded
from .probe import Probe, probe, unwrap
from .user_code import call_users

__all__ = ["Samples", "Task", "load_samples", "load_task"]

PerSample = Callable[[Any, Any], Tensor]
Samples = tuple[npt.NDArray[Any], npt.NDArray[Any]]


class Task:
    """
    Something to learn.

    The training step sees the model's modules in the mode that they are in: a ``BatchNorm`` in eval mode uses its
    running statistics, which are frozen weights; in training mode those of its micro-batch, and its running statistics
    move and are averaged with the updates (:attr:`moved`). Evaluation and prediction see all modules in eval mode.

    Args:
        model: maps x, shape (n, ...), to an output whose first axis is n. All floating state is float32. It is looked
            at, never changed. Parameters whose ``requires_grad`` is False stay as they are.
        loss: ``loss(output, y)`` gives one float32 per sample, shape (n,).
        example_x: a batch of inputs, tensor or array of shape (n, ...); or a tuple of them, with which the model is
            called as ``model(*x)``, or a dict, for ``model(**x)``.
        example_y: the batch's targets, shape (n, ...); or a tuple or dict of such, which the loss gets as it is.
        name: what to call it; the model's class name where empty.
        metrics: name -> ``function(output, y)``: one number per sample, shape (n,), such as 1 where it was right.
        held_out: the samples ``(x, y)`` that central evaluation uses, or a function without arguments that gives them,
            which reads them only when they are wanted.
        proxy: the same of your own or public data, on which planning finds out what is worth training.
        micro_batch: samples per training step; the example's where :obj:`None`.
        range: closed interval of valid x, where that is one array.
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
        example_x: Any,
        example_y: Any,
        *,
        name: str = "",
        metrics: Mapping[str, PerSample] | None = None,
        held_out: Callable[[], Samples] | Samples | None = None,
        proxy: Callable[[], Samples] | Samples | None = None,
        micro_batch: int | None = None,
        range: tuple[float, float] | None = None,
        normalisation: str = "",
        labels: Sequence[str] = (),
        local: Sequence[str] = (),
        fold_batch_norm: bool = False,
    ) -> None:
        notes: list[str] = []
        self.loss = loss
        # Tensors, or Several where the task takes more than one; whoever made the task knows which.
        self.example_x: Any = as_batch(example_x, "example_x", notes)
        self.example_y: Any = as_batch(example_y, "example_y", notes)
        model = unwrap(model, notes)
        if fold_batch_norm:
            if isinstance(self.example_x, Several):
                raise TaskError("batch normalisation is folded in models of one input: leave out fold_batch_norm")
            model = folded(model, self.example_x)
        self.model = model
        self.name = name or type(model).__name__
        self.metrics = dict(metrics or {})
        self.held_out = _giving(held_out, "held_out")
        self.proxy = _giving(proxy, "proxy")
        self._check_example()
        self.micro_batch = len(self.example_x) if micro_batch is None else micro_batch
        if self.micro_batch < 1:
            raise TaskError(f"the micro-batch of task {self.name!r} is {micro_batch}; it must be at least 1")
        self.layout = _layout(model)
        _check_statistics(model)
        found = self._probe(notes)
        # Buffers that a training step moves; they are exchanged like what is trained.
        self.moved = self._moved(found.moved)
        # Methods whose batches must be full, since samples of a batch see each other.
        self.whole = found.whole
        self._unused = frozenset(found.unused)
        notes += self._frozen_notes()
        # What was converted or left out, a sentence each: said once, at export.
        self.notes = tuple(dict.fromkeys(notes))
        self.local = self._local(local)
        self.contract = self._contract(range, normalisation, labels, found.bounds)

    def _check_example(self) -> None:
        for name, example in (("example_x", self.example_x), ("example_y", self.example_y)):
            for part, tensor in zip(names_of(example), tensors_of(example), strict=True):
                said = f"{name}[{part!r}]" if part else name
                if tensor.dim() < 1 or len(tensor) < 1:
                    raise TaskError(f"{said} of shape {tuple(tensor.shape)} is no batch; its first axis counts samples")
                if len(tensor) != len(example):
                    raise TaskError(f"{said} has {len(tensor)} samples, another part of {name} {len(example)}")
        if len(self.example_x) != len(self.example_y):
            raise TaskError(f"example_x has {len(self.example_x)} samples and example_y {len(self.example_y)}")

    def _probe(self, notes: list[str]) -> Probe:
        """What a step over the example shows; targets are made int64 where the loss takes nothing else."""
        try:
            found, _, values, _ = probe(self.model, self.loss, self.example_x, self.example_y, self.metrics, quiet_step)
        except TaskError:
            wider = _as_int64(self.example_y)
            if wider is None:
                raise
            try:
                found, _, values, _ = probe(self.model, self.loss, self.example_x, wider, self.metrics, quiet_step)
            except TaskError:
                wider = None
            if wider is None:
                raise
            dtype = str(tensors_of(self.example_y)[0].dtype).removeprefix("torch.")
            notes.append(f"example_y is {dtype}, which the loss does not take, and was converted to int64: "
                         "give devices such targets")  # fmt: skip
            self.example_y = wider
        if values.dtype != torch.float32:
            raise TaskError(f"the loss must be float32, not {values.dtype}")
        return found

    def _moved(self, found: Sequence[str]) -> tuple[str, ...]:
        """Those of the buffers that a step moves which can be exchanged; others but counters of a norm are refused."""
        known = {p.name for p in self.layout}
        for name in found:
            owner = self.model.get_submodule(name.rpartition(".")[0])
            counts = isinstance(owner, nn.modules.batchnorm._NormBase) and name.endswith("num_batches_tracked")
            if name in known or counts:
                continue
            raise TaskError(
                f"the forward pass moves the buffer {name!r}, which no program hands out; make it a persistent float32 "
                "buffer, which is exchanged like weights, or compute it outside the model"
            )
        return tuple(name for name in found if name in known)

    def _frozen_notes(self) -> list[str]:
        frozen = [name for name, p in self.model.named_parameters() if not p.requires_grad]
        result = []
        if frozen:
            result.append(f"frozen, since requires_grad is False: {_listed(frozen)}")
        if self._unused:
            unused = [name for name, _ in self.model.named_parameters() if name in self._unused]
            result.append(f"not trained, since the loss does not depend on them: {_listed(unused)}")
        if not self.parameter_names():
            raise TaskError(
                "no parameter of the model can be trained: none has requires_grad and influence on the loss"
            )
        statistics = [name for name in self.moved if isinstance(
            self.model.get_submodule(name.rpartition(".")[0]), nn.modules.batchnorm._NormBase)]  # fmt: skip
        if statistics:
            result.append(
                f"{len(statistics)} running statistics of batch normalisation in training mode are averaged with the "
                "update; a step needs a full micro-batch"
            )
        return result

    def _contract(
        self, range: tuple[float, float] | None, normalisation: str, labels: Sequence[str], bounds: Sequence[Bound]
    ) -> InputContract:
        if range is not None and isinstance(self.example_x, Several):
            raise TaskError("range is that of one array, and x has several: check theirs in the model's own data")
        fields: dict[str, Any] = {}
        for array, example in (("x", self.example_x), ("y", self.example_y)):
            each = [
                Part(name, tuple(t.shape[1:]), _dtype(t, f"example_{array}"))
                for name, t in zip(names_of(example), tensors_of(example), strict=True)
            ]
            if isinstance(example, Several):
                fields |= {f"{array}_shape": (), f"{array}_dtype": SEVERAL, f"{array}_parts": tuple(each)}
            else:
                fields |= {f"{array}_shape": each[0].shape, f"{array}_dtype": each[0].dtype}
        if labels and fields["y_shape"] == ():
            limit = len(labels) - 1
            bounds = [
                dataclasses.replace(b, high=min(b.high, limit)) if b.array == "y" and not b.part else b for b in bounds
            ]
        return InputContract(
            **fields,
            range=None if range is None else (float(range[0]), float(range[1])),
            normalisation=normalisation,
            labels=tuple(labels),
            bounds=tuple(bounds),
        )

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

    def batch(self, n: int) -> tuple[Any, Any]:
        """
        ``n`` samples, the example over and over.

        Returns:
            x of shape ``(n, *x_shape)``, y of shape ``(n, *y_shape)``.

        """
        index = torch.arange(n) % len(self.example_x)
        return self.example_x[index], self.example_y[index]

    @property
    def least_micro_batch(self) -> int:
        """Fewest samples per training step: the task's micro-batch where samples see each other, else one."""
        return self.micro_batch if "train_step" in self.whole else 1

    def initial_weights(self) -> Vector:
        """The model's parameters and buffers as they are now: one float32 vector in layout order."""
        state = self.model.state_dict()
        return self.layout.flatten({p.name: state[p.name].detach().cpu().numpy() for p in self.layout})

    def parameter_names(self) -> list[str]:
        """Names of what can be trained, in layout order: with ``requires_grad``, and influence on the loss."""
        trainable = {name for name, p in self.model.named_parameters() if p.requires_grad} - self._unused
        return [p.name for p in self.layout if p.name in trainable]


def _giving(samples: Any, name: str) -> Callable[[], Samples] | None:
    """A function that gives the samples, whichever way they were given."""
    if samples is None:
        return None
    if callable(samples):
        return cast(Callable[[], Samples], samples)
    if isinstance(samples, (tuple, list)) and len(samples) == 2:
        return functools.partial(tuple, samples)  # a process of its own can be sent this, and no lambda
    raise TaskError(f"{name} is a {type(samples).__name__}; it must be samples (x, y), or a function that gives them")


def _check_statistics(model: nn.Module) -> None:
    """A cumulative average counts batches, which no program does."""
    for name, module in model.named_modules():
        moving = isinstance(module, nn.modules.batchnorm._NormBase) and module.training and module.track_running_stats
        if moving and module.momentum is None:
            raise TaskError(f"{name!r} has momentum=None, a cumulative average; give it one, such as momentum=0.1")


def _as_int64(y: Batch) -> Batch | None:
    """Targets of small whole numbers as int64; :obj:`None` where there are none."""
    small = (torch.int32, torch.uint8)
    tensors = tensors_of(y)
    if not any(t.dtype in small for t in tensors):
        return None
    return like(y, [t.long() if t.dtype in small else t for t in tensors])


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:6])
    return shown if len(names) <= 6 else f"{shown} and {len(names) - 6} more"


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
    state = model.state_dict(keep_vars=True)
    for name, tensor in state.items():
        if name not in named and not tensor.is_floating_point():
            if tensor.dim() == 0:
                continue  # a counter, which no forward pass in use reads
            raise TaskError(
                f"buffer {name!r} has the dtype {tensor.dtype}; register it with persistent=False to make it a constant"
            )
        if tensor.dtype != torch.float32:
            raise TaskError(f"{name!r} has the dtype {tensor.dtype}; every weight must be float32: call model.float()")
        if tensor.numel() == 0:
            raise TaskError(f"{name!r} of shape {tuple(tensor.shape)} has no elements")
        if owners.setdefault(id(tensor), name) != name:
            continue  # a tied weight is one weight, under its first name
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
