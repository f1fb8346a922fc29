"""What is trained, and how, as data."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from mobile_sdk.layout import Layout, Subset

from .errors import ExportError
from .task import Task

__all__ = ["CHOICES", "Plan", "bakeable", "frozen_in_all"]

# How a convolution whose weights travel may be computed, from the fastest on few samples to the leanest.
CHOICES = ("columns", "tiled", "shifted")


@dataclasses.dataclass(frozen=True)
class Plan:
    """
    The trained subset of a task's parameters, and how a training step goes about it.

    Args:
        subset: what is trained.
        micro_batch: samples per step.
        baked: names of frozen weights that are inside the program instead of among its inputs, sorted. Only what is
            frozen in every plan of a run may be baked: see :func:`frozen_in_all`.
        lowering: module of a convolution -> how it is computed, one of :data:`CHOICES`: ``columns`` unrolls the
            whole micro-batch for one product, ``tiled`` a few samples at a time, ``shifted`` sums one product
            per tap and unrolls nothing. A module that is not named is tiled.
        forward_batch: samples that the layers below the first trained one take at a time; :obj:`None` for as many
            as need the least memory, by estimate.

    Raises:
        ExportError: if nothing is trained, a number is out of range, or a name of ``baked`` or a choice of ``lowering``
            cannot be.

    """

    subset: Subset
    micro_batch: int
    baked: tuple[str, ...] = ()
    lowering: Mapping[str, str] = dataclasses.field(default_factory=lambda: MappingProxyType({}), hash=False)
    forward_batch: int | None = None

    def __post_init__(self) -> None:
        if not len(self.subset):
            raise ExportError("the plan trains nothing; name at least one parameter")
        if self.micro_batch < 1:
            raise ExportError(f"the plan has the micro-batch {self.micro_batch}; it must be at least 1")
        if self.forward_batch is not None and not 1 <= self.forward_batch <= self.micro_batch:
            raise ExportError(f"the forward batch is {self.forward_batch}; it must be 1 to {self.micro_batch}")
        object.__setattr__(self, "baked", tuple(sorted(self.baked)))
        object.__setattr__(self, "lowering", MappingProxyType(dict(self.lowering)))
        for name in self.baked:
            if name in self.subset:
                raise ExportError(f"the plan trains {name!r}, so it cannot be baked into the program")
            if name not in self.subset.layout:
                raise ExportError(f"the plan bakes {name!r}, which the task does not have")
        for module, choice in self.lowering.items():
            if choice not in CHOICES:
                raise ExportError(f"module {module!r} cannot be lowered as {choice!r}; use {', '.join(CHOICES)}")

    @classmethod
    def everything(cls, task: Task, micro_batch: int | None = None) -> Plan:
        """All parameters of ``task``, at its own micro-batch or another."""
        subset = Subset.whole(task.layout, task.parameter_names())
        return cls(subset, task.micro_batch if micro_batch is None else micro_batch)

    def with_local(self, task: Task) -> Plan:
        """The same plan, training also what the task keeps on each device."""
        lacking = [name for name in task.local if name not in self.subset or self.subset[name] is not None]
        if not lacking:
            return self
        return dataclasses.replace(self, subset=Subset(self.subset.layout, {**self.subset, **dict.fromkeys(lacking)}))

    def with_moved(self, task: Task) -> Plan:
        """The same plan with the buffers that a training step moves, which are exchanged whatever is trained."""
        if all(name in self.subset for name in task.moved):
            return self
        return dataclasses.replace(
            self, subset=Subset(self.subset.layout, {**self.subset, **dict.fromkeys(task.moved)})
        )

    def bake(self, names: Iterable[str]) -> Plan:
        """The same plan with ``names`` inside the program."""
        return dataclasses.replace(self, baked=tuple(names))

    def to_json(self) -> dict[str, Any]:
        """``{"subset": {...}, "micro_batch": n}``, and the other fields where they say something."""
        data: dict[str, Any] = {"subset": self.subset.to_json(), "micro_batch": self.micro_batch}
        if self.baked:
            data["baked"] = list(self.baked)
        if self.lowering:
            data["lowering"] = dict(self.lowering)
        if self.forward_batch is not None:
            data["forward_batch"] = self.forward_batch
        return data

    @classmethod
    def from_json(cls, layout: Layout, data: Any) -> Plan:
        """
        Parse what :meth:`to_json` gives, or its text.

        Raises:
            ExportError: if ``data`` is not a plan.
            LayoutError: if its subset does not fit ``layout``.

        """
        try:
            data = json.loads(data) if isinstance(data, str | bytes) else data
            micro_batch = _whole(data["micro_batch"], "micro-batch")
            subset = data["subset"]
            baked = tuple(str(name) for name in data.get("baked", ()))
            lowering = {str(module): str(choice) for module, choice in data.get("lowering", {}).items()}
            forward = data.get("forward_batch")
            forward = None if forward is None else _whole(forward, "forward batch")
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
            raise ExportError(f"not a plan: {type(error).__name__}: {error}") from error
        return cls(Subset.from_json(layout, subset), micro_batch, baked, lowering, forward)


def _whole(value: Any, what: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ExportError(f"not a plan: the {what} is {value!r}")
    return value


def bakeable(task: Task) -> set[str]:
    """
    Names of what gains by being inside the program: 2-d convolutions, and batch normalisation that follows statistics.

    The delegate convolves with static weights without unrolling its input. It keeps a packed copy of them, which is why
    linear layers, whose weights it reads where they lie, gain nothing.
    """
    names: set[str] = set()
    for path, module in task.model.named_modules():
        frozen_norm = isinstance(module, nn.modules.batchnorm._BatchNorm) and not module.training
        if isinstance(module, nn.Conv1d | nn.Conv2d) or frozen_norm:
            own = module.state_dict()
            names |= {f"{path}.{name}" if path else name for name in own if isinstance(own[name], torch.Tensor)}
    return (names & {p.name for p in task.layout}) - set(task.local) - set(task.moved)


def frozen_in_all(task: Task, plans: Iterable[Plan]) -> list[str]:
    """Names, of those that gain by it, that no plan trains: what all plans of one run may bake."""
    trained = {name for plan in plans for name in plan.subset}
    return sorted(bakeable(task) - trained)
