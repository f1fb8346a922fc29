"""
Sensitivity of the output: what can move the model, without labels and without gradients.

The score of a slice is the mean squared change of the model's output when noise is added to the slice, per variance
of the noise: for small noise ``E |J d|^2 / s^2 = trace(J^T J)``, the trace of the slice's neural tangent kernel
(Jacot et al. 2018), which bounds how fast gradient descent on it can lower any loss. Forward passes alone, on
unlabelled samples, in the spirit of AdaBet (Tenison et al. 2025), which counts holes in activations instead.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from ..batches import Batch, call
from ..space import LEVELS, Layer
from .evidence import Evidence
from .scores import Scores, additive

__all__ = ["scores"]

_SAMPLES = 64
_DRAWS = 8
# The noise's deviation relative to the layer's weights: small enough to be in the linear range, well above rounding.
_RELATIVE = 1e-2


def scores(evidence: Evidence) -> Scores:
    """Squared changes of the output per variance of noise, over at most 64 samples and eight draws of noise."""
    space = evidence.space
    x = evidence.example[0]
    random = torch.Generator().manual_seed(evidence.seed)
    x = x[torch.randperm(len(x), generator=random)[:_SAMPLES]]
    model = copy.deepcopy(space.task.model)
    parameters = dict(model.named_parameters())
    biases, weights = [], []
    with torch.no_grad():
        before = call(model, x).double()
        for done, layer in enumerate(space.layers):
            evidence.progress("sensitivity", done, len(space))
            scale = _scale([parameters[n] for n in layer.weights or layer.biases])
            probe = _Probe(model, x, before, scale, random)
            biases.append(probe([(parameters[n], None) for n in layer.biases]) if layer.biases else 0.0)
            weights.append(_by_channels(layer, parameters, probe))
    evidence.progress("sensitivity", len(space), len(space))
    return additive(space, biases, weights, "squared output")


def _by_channels(layer: Layer, parameters: dict[str, nn.Parameter], probe: _Probe) -> list[float]:
    """
    What the first n channels of the layer's order add, for every n that is a level; in between, the level below.

    The trace is a sum over parameters, so each level adds to the one before it.
    """
    if not layer.order:
        return [probe([(parameters[n], None) for n in layer.weights]) if layer.weights else 0.0]
    weight = parameters[layer.weights[0]]
    sums: list[float] = []
    total = 0.0
    for count in [layer.channels(level) for level in range(len(LEVELS)) if level in layer.levels and level > 1]:
        index = torch.tensor(layer.order[len(sums) : count])
        total += probe([(weight, (layer.axis, index))])
        sums += [total] * (count - len(sums))
    return sums


class _Probe:
    """Adds noise to parts of parameters, looks at the output, and takes it away again."""

    def __init__(self, model: nn.Module, x: Batch, before: Tensor, scale: float, random: torch.Generator) -> None:
        self.model, self.x, self.before, self.scale, self.random = model, x, before, scale, random

    def __call__(self, parts: list[tuple[nn.Parameter, tuple[int, Tensor] | None]]) -> float:
        kept = [parameter.clone() for parameter, _ in parts]
        total = 0.0
        for _ in range(_DRAWS):
            for parameter, part in parts:
                noise = torch.randn(parameter.shape, generator=self.random) * self.scale
                if part is None:
                    parameter.add_(noise)
                else:
                    parameter.index_add_(*part, noise.index_select(*part))
            total += float(((call(self.model, self.x).double() - self.before) ** 2).sum()) / len(self.x)
            for (parameter, _), value in zip(parts, kept, strict=True):
                parameter.copy_(value)
        return total / _DRAWS / self.scale**2


def _scale(parameters: list[nn.Parameter]) -> float:
    """Deviation of the noise: relative to the root mean square, or absolute where all are zero."""
    size = sum(p.numel() for p in parameters)
    square = sum(float((p.double() ** 2).sum()) for p in parameters) / size
    return _RELATIVE * (float(square) ** 0.5 or 1.0)
