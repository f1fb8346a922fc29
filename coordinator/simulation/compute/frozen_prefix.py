"""
What all devices compute alike: the layers in front of the first one that any plan trains.

No version changes their weights, so what they make of a sample stays the same for the whole run. A worker computes it
once for each device's samples and trains the layers behind it on what it kept. This is not the device's memory, which
its class states, and not its time, which is that of the measured program.
"""

from __future__ import annotations

import collections
import copy
from collections.abc import Collection
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.func import functional_call

from exporters.batches import Several
from exporters.task import Task
from mobile_sdk.layout import Arrays, Layout, Vector

__all__ = ["FrozenPrefix", "behind"]

# How much a worker keeps; what was not used for the longest time is dropped.
KEPT_BYTES = 1_000_000_000
# Samples that go through at a time.
BATCH = 64

# Layers that treat each sample by itself, the same way in training and in evaluation.
SAMPLEWISE = (
    nn.Conv1d,
    nn.Conv2d,
    nn.Linear,
    nn.GroupNorm,
    nn.LayerNorm,
    nn.ReLU,
    nn.ReLU6,
    nn.LeakyReLU,
    nn.ELU,
    nn.GELU,
    nn.SiLU,
    nn.Hardswish,
    nn.Hardsigmoid,
    nn.Hardtanh,
    nn.Sigmoid,
    nn.Tanh,
    nn.MaxPool1d,
    nn.MaxPool2d,
    nn.AvgPool1d,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool1d,
    nn.AdaptiveAvgPool2d,
    nn.AdaptiveMaxPool2d,
    nn.ZeroPad2d,
    nn.Flatten,
    nn.Identity,
)
# These do so where they are in eval mode already: their running statistics are frozen weights.
SAMPLEWISE_IN_EVAL = (nn.BatchNorm1d, nn.BatchNorm2d)


class FrozenPrefix:
    """
    The first layers of a task's model, and what they made of samples.

    Args:
        layers: by their names in the model.
        inside: names of weights that are inside the programs: the layers' own, whatever comes with a job.
        limit: bytes to keep.

    """

    def __init__(
        self,
        layers: collections.OrderedDict[str, nn.Module],
        inside: Collection[str] = (),
        limit: int = KEPT_BYTES,
    ) -> None:
        self._layers = nn.Sequential(layers)
        self._names = [name for name in self._layers.state_dict() if name not in inside]
        self._limit = limit
        self._weights: dict[str, Vector] = {}
        self._kept: collections.OrderedDict[tuple[int, bytes], npt.NDArray[np.float32]] = collections.OrderedDict()
        self._bytes = 0

    def __call__(self, x: npt.NDArray[Any], indices: npt.NDArray[np.int64], weights: Arrays) -> npt.NDArray[np.float32]:
        """
        What the layers make of ``x[indices]``, shape ``(n, ...)``, read-only.

        Kept or computed just now, it is the same to the bit.

        Args:
            x: samples, always the same array for the same samples.
            indices: shape ``(n,)``.
            weights: by name; the layers' own stand for those that are missing.

        """
        key = id(x), indices.tobytes()
        given = {name: weights[name] for name in self._names if name in weights}
        if given.keys() != self._weights.keys() or any(not np.array_equal(given[n], self._weights[n]) for n in given):
            self._kept.clear()
            self._bytes = 0
            self._weights = {name: array.copy() for name, array in given.items()}
        found = self._kept.get(key)
        if found is not None:
            self._kept.move_to_end(key)
            return found
        made = self.make(x[indices])
        if made.nbytes <= self._limit:
            self._kept[key] = made
            self._bytes += made.nbytes
            while self._bytes > self._limit:
                self._bytes -= self._kept.popitem(last=False)[1].nbytes
        return made

    def make(self, x: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """
        What the layers make of ``x`` with the weights of the last call, or else their own; not kept.

        Args:
            x: shape ``(n, ...)``, any dtype that the model takes.

        Returns:
            float32, shape ``(n, ...)``.

        """
        state = {name: torch.from_numpy(array) for name, array in self._weights.items()}
        parts = []
        with torch.no_grad():
            for start in range(0, len(x), BATCH):
                part = torch.from_numpy(x[start : start + BATCH])
                parts.append(functional_call(self._layers, state, (part,)).numpy())
        made = np.concatenate(parts)
        made.flags.writeable = False  # a layer behind may work in place
        return made


def behind(task: Task, trained: Collection[str], inside: Collection[str] = ()) -> tuple[FrozenPrefix | None, Task]:
    """
    Take a task apart in front of the first layer that is trained.

    Args:
        task: its model is taken apart if it is an ``nn.Sequential``, as far as its layers treat each sample by itself.
        trained: names of what any plan trains.
        inside: names of the weights that are inside all programs.

    Returns:
        The frozen layers, or :obj:`None` if there are none that can be told apart, and the task of the others, which
        takes what they make.

    """
    model = task.model
    if type(model) is not nn.Sequential:
        return None, task
    children = list(model.named_children())
    count = 0
    for name, layer in children[:-1]:
        mine = any(weight == name or weight.startswith(f"{name}.") for weight in trained)
        if mine or not _samplewise(layer):
            break
        count += 1
    if not any(True for _, layer in children[:count] for _ in layer.parameters()):
        return None, task
    if isinstance(task.example_x, Several):
        return None, task
    prefix = FrozenPrefix(collections.OrderedDict(children[:count]), inside)
    rest = copy.copy(task)
    rest.model = nn.Sequential(collections.OrderedDict(children[count:]))
    # Not kept: the array is gone in a moment, and another may come to lie where it was.
    rest.example_x = torch.from_numpy(prefix.make(task.example_x.numpy().copy()).copy())
    names = set(rest.model.state_dict())
    rest.moved = tuple(name for name in task.moved if name in names)
    rest.layout = Layout(parameter for parameter in task.layout if parameter.name in names)
    return prefix, rest


def _samplewise(layer: nn.Module) -> bool:
    if type(layer) is nn.Sequential:
        return all(map(_samplewise, layer))
    return type(layer) in SAMPLEWISE or (type(layer) in SAMPLEWISE_IN_EVAL and not layer.training)
