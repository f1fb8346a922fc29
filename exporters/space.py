"""
What can be trained, layer by layer: the space that the search looks through.

A layer is a module with weights, and it stands at one of six levels: frozen, its biases, or its weights at 1/8, 1/4,
1/2 or all of its input channels (biases included). Input channels are what saves activations: a weight's gradient is
the product of what came in and the gradient of what goes out, so a slice needs only its own channels of the input.
Channels are taken in one order per layer, those with the largest weight norm first, so that every level lies inside
the next, and one device's subset inside another's.

A bias needs no activation of its layer. A bias of the normalisation behind a layer counts as the layer's own. The
*scale* of a normalisation is left alone unless everything is trained: what it multiplies can be learned in the
weights before it, and its gradient would need the layer's whole output.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from mobile_sdk.layout import Slice, Subset, Vector

from .batches import call, value_of
from .errors import ExportError
from .plan import Plan
from .task import Task

__all__ = ["BIAS", "FROZEN", "LEVELS", "RATIOS", "WHOLE", "Layer", "Levels", "Space"]

FROZEN, BIAS = 0, 1
# The share of input channels at each level that trains weights; bias and frozen have none.
RATIOS = (0.0, 0.0, 1 / 8, 1 / 4, 1 / 2, 1.0)
WHOLE = len(RATIOS) - 1
LEVELS = ("frozen", "bias", "1/8", "1/4", "1/2", "all")

# One level per layer, in the order in which layers run.
Levels = tuple[int, ...]

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d)


@dataclasses.dataclass(frozen=True)
class Layer:
    """
    One row of a plan.

    Args:
        name: path of the module.
        kind: class of the module.
        weights: parameters with more than one axis, or all of a layer that has no other.
        biases: its biases, and those of the normalisation behind it.
        order: input channels, largest weight norm first; empty where only the whole can be trained.
        axis: the axis of ``weights[0]`` that counts input channels.
        inputs: elements that come in, per sample.
        outputs: elements that go out, per sample.
        columns: elements of the unrolled input, per sample: inputs times kernel for a convolution.

    """

    name: str
    kind: str
    weights: tuple[str, ...]
    biases: tuple[str, ...]
    order: tuple[int, ...]
    axis: int
    inputs: int
    outputs: int
    columns: int

    @functools.cached_property
    def levels(self) -> tuple[int, ...]:
        """Levels that differ from each other; frozen is always the first."""
        found = [FROZEN]
        if self.biases:
            found.append(BIAS)
        if self.weights:
            counts = {self.channels(level): level for level in range(WHOLE, BIAS, -1)} if self.order else {0: WHOLE}
            found += sorted(counts.values())
            if self.order and found[-1] != WHOLE:  # a single channel: the smallest ratio is already everything
                found[-1] = WHOLE
        return tuple(found)

    def channels(self, level: int) -> int:
        """How many input channels the level trains; at least one where it trains weights."""
        return math.ceil(RATIOS[level] * len(self.order)) if level > BIAS else 0

    def share(self, level: int) -> float:
        """The part of the weights that the level trains, 0 to 1."""
        if level <= BIAS:
            return 0.0
        return self.channels(level) / len(self.order) if self.order else 1.0

    def trained(self, level: int) -> dict[str, Slice | None]:
        """What the level trains."""
        if level == FROZEN:
            return {}
        choice: dict[str, Slice | None] = dict.fromkeys(self.biases)
        if level > BIAS:
            choice |= dict.fromkeys(self.weights)
            count = self.channels(level)
            if count < len(self.order):
                choice[self.weights[0]] = Slice(self.axis, tuple(sorted(self.order[:count])))
        return choice


class Space:
    """
    All plans of a task.

    Args:
        task: what to learn; its weights fix the order of channels.

    Raises:
        ExportError: if no parameter has an influence on the loss.

    """

    def __init__(self, task: Task) -> None:
        self.task = task
        self.layers = _layers(task)
        if not self.layers:
            raise ExportError(f"no parameter of task {task.name!r} has an influence on its loss")

    def __len__(self) -> int:
        return len(self.layers)

    @functools.cached_property
    def digest(self) -> str:
        """Hash of the layers, their channel orders, and the weights that they start from."""
        digest = hashlib.sha256(repr(self.layers).encode())
        digest.update(repr(self.task.layout.parameters).encode())
        digest.update(self.task.initial_weights().tobytes())
        return digest.hexdigest()

    def subset(self, levels: Sequence[int]) -> Subset:
        """The trained parameters at ``levels``, one per layer."""
        choice: dict[str, Slice | None] = {}
        for layer, level in zip(self.layers, levels, strict=True):
            choice |= layer.trained(level)
        return Subset(self.task.layout, choice)

    def plan(self, levels: Sequence[int], micro_batch: int) -> Plan:
        """
        The plan at ``levels``.

        Raises:
            ExportError: if they train nothing.

        """
        return Plan(self.subset(levels), micro_batch)

    def last(self, count: int) -> Levels:
        """The last ``count`` layers whole, the others frozen."""
        frozen = len(self) - count
        return tuple(FROZEN if i < frozen else layer.levels[-1] for i, layer in enumerate(self.layers))

    def only(self, index: int, level: int, onto: Sequence[int] | None = None) -> Levels:
        """
        One layer at ``level``, the others as in ``onto`` or frozen.

        Args:
            index: of the layer.
            level: 0 (frozen) to 5 (all).
            onto: levels of the other layers; frozen where :obj:`None`.

        """
        levels = list(onto or (FROZEN,) * len(self))
        levels[index] = level
        return tuple(levels)

    def shares(self, subset: Subset) -> list[float]:
        """Per layer, the part of its elements that ``subset`` trains, 0 to 1."""
        result = []
        for layer in self.layers:
            names = [*layer.weights, *layer.biases]
            trained = sum(math.prod(subset.shape(n)) for n in names if n in subset)
            result.append(trained / sum(self.task.layout[n].size for n in names))
        return result

    def level_of(self, subset: Subset) -> Levels:
        """Per layer, the largest level that lies inside ``subset``."""
        return tuple(
            max(level for level in layer.levels if _inside(layer.trained(level), subset)) for layer in self.layers
        )


def _inside(choice: dict[str, Slice | None], subset: Subset) -> bool:
    for name, part in choice.items():
        if name not in subset:
            return False
        whole = subset[name]
        if whole is None:
            continue
        if part is None or part.axis != whole.axis or not set(part.indices) <= set(whole.indices):
            return False
    return True


@dataclasses.dataclass
class _Ran:
    """A module that owns parameters, when it ran: parameter names and elements per sample."""

    path: str
    module: nn.Module
    own: list[str]
    inputs: int
    outputs: int


def _layers(task: Task) -> tuple[Layer, ...]:
    ran = _run(task)
    weights = task.layout.views(task.initial_weights())
    layers: list[Layer] = []
    for item in ran:
        matrices = [n for n in item.own if len(task.layout[n].shape) > 1]
        vectors = [n for n in item.own if n not in matrices]
        if matrices:
            layers.append(_layer(item, tuple(matrices), tuple(vectors), weights))
        elif layers:
            # A normalisation belongs to the layer before it: its bias, or its scale where it has nothing else.
            biases = [n for n in vectors if n.rpartition(".")[2] == "bias"] or vectors
            layers[-1] = dataclasses.replace(layers[-1], biases=(*layers[-1].biases, *biases), outputs=item.outputs)
        else:
            layers.append(
                Layer(item.path, type(item.module).__name__, (), tuple(vectors), (), 0, item.inputs, item.outputs, 0)
            )
    return tuple(layers)


def _layer(item: _Ran, matrices: tuple[str, ...], vectors: tuple[str, ...], weights: dict[str, Vector]) -> Layer:
    module = item.module
    convolution = isinstance(module, _CONVOLUTIONS)
    order: tuple[int, ...] = ()
    axis, columns = 0, item.inputs
    if len(matrices) == 1 and (convolution or isinstance(module, nn.Linear)):
        weight = weights[matrices[0]]
        grouped = convolution and getattr(module, "groups", 1) > 1
        axis = 0 if grouped else 1  # depthwise: an input channel is an output channel
        norms = np.sqrt((weight**2).sum(tuple(i for i in range(weight.ndim) if i != axis)))
        order = tuple(int(i) for i in np.argsort(-norms, kind="stable"))
        if convolution:
            channels = weight.shape[0]
            columns = item.outputs // channels * math.prod(weight.shape[2:]) * len(order)
    return Layer(item.path, type(module).__name__, matrices, vectors, order, axis, item.inputs, item.outputs, columns)


def _run(task: Task) -> list[_Ran]:
    """The modules that own parameters with an influence on the loss, in the order in which they run first."""
    paths = {module: path for path, module in task.model.named_modules()}
    seen: dict[nn.Module, _Ran] = {}

    def begin(module: nn.Module, args: tuple[object, ...]) -> None:
        seen.setdefault(module, _Ran(paths[module], module, [], _elements(args) // count, 0))

    def end(module: nn.Module, args: tuple[object, ...], output: object) -> None:
        seen[module].outputs = _elements(output) // count

    handles = [module.register_forward_pre_hook(begin) for module in paths]
    handles += [module.register_forward_hook(end) for module in paths]
    # One sample, except where samples see each other.
    count = len(task.example_x) if task.whole else 1
    x, y = task.example_x[:count], task.example_y[:count]
    parameters = dict(task.model.named_parameters())
    flags = {name: p.requires_grad for name, p in parameters.items()}
    try:
        for parameter in parameters.values():
            parameter.requires_grad_(True)
        loss = task.loss(call(task.model, x), value_of(y)).sum()
        gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    finally:
        for handle in handles:
            handle.remove()
        for name, parameter in parameters.items():
            parameter.requires_grad_(flags[name])
    modules = dict(task.model.named_modules())
    learned = set(task.parameter_names())
    for (name, _), gradient in zip(parameters.items(), gradients, strict=True):
        if gradient is None or name in task.local or name not in learned:  # what is local is trained in every plan
            continue
        owner = name.rpartition(".")[0]
        while modules[owner] not in seen:  # attention reads its projection's weights without calling it
            owner = owner.rpartition(".")[0]
        seen[modules[owner]].own.append(name)
    return [item for item in seen.values() if item.own]


def _elements(value: object) -> int:
    """Elements of all tensors in a value, of one sample."""
    if isinstance(value, Tensor):
        return value.numel()
    if isinstance(value, tuple | list):
        return sum(_elements(v) for v in value)
    return 0
