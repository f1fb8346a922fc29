"""
How much memory plans take: measured where it counts, predicted in between.

A search looks at thousands of plans and can measure a dozen. The prediction is a sum of what follows exactly from the
plan (copies of trained parameters, gradients, momentum, the batch) and of a few sizes times coefficients that are
fitted to measurements. Coefficients start from a rough guess and are never negative, so that three measurements do.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.optimize import nnls

from ..batches import tensors_of
from ..space import BIAS, FROZEN, LEVELS, Levels, Space

__all__ = ["Costs", "MemoryModel"]

Floats = npt.NDArray[np.float64]

# What each size costs before anything is measured, and how far from that a coefficient may be expected: its own size.
# Constant (100 KB); widest layer, forward; widest layer, backward; outputs kept for the backward pass; inputs of
# trained weights; their columns; weights turned for the backward pass; gradients in another order.
_GUESS = np.array([3.0, 1.0, 0.5, 1.0, 1.0, 0.3, 0.5, 1.0])
_CONSTANT = 100_000.0
# Measurements repeat within about this.
_REPEATS = 0.02


@dataclasses.dataclass(frozen=True)
class Costs:
    """
    Predicted bytes as the knapsack needs them.

    Args:
        base: shape (layers,): what a plan takes whose first trained layer is this one, all layers frozen from there on.
        layer: shape (layers, levels): what a layer adds at a level; zero where it is frozen.

    """

    base: Floats
    layer: Floats

    def of(self, levels: npt.NDArray[np.int64]) -> Floats:
        """Bytes, shape (plans,), of ``levels``, shape (plans, layers); infinite where nothing is trained."""
        trained = levels != FROZEN
        first = np.where(trained.any(1), trained.argmax(1), -1)
        total = np.where(first >= 0, self.base[first], np.inf)
        result: Floats = total + self.layer[np.arange(levels.shape[1]), levels].sum(1)
        return result


class MemoryModel:
    """
    Predicts the anonymous memory of a training step.

    Args:
        space: the layers.

    """

    def __init__(self, space: Space) -> None:
        self.space = space
        self._measured: list[tuple[Levels, int, int]] = []
        self._coefficients = _GUESS.copy()
        task = space.task
        self._sample_bytes = sum(t[:1].nbytes for t in (*tensors_of(task.example_x), *tensors_of(task.example_y))) + 4
        self._exact = np.array(
            [[self._trained_bytes(i, level) for level in range(len(LEVELS))] for i in range(len(space))]
        )

    def learn(self, levels: Levels, micro_batch: int, measured_bytes: int) -> None:
        """
        Take in a measurement and fit anew.

        Args:
            levels: of the plan, one per layer.
            micro_batch: samples per step.
            measured_bytes: of its training step.

        """
        self._measured.append((levels, micro_batch, measured_bytes))
        rows = [*np.diag(1 / _GUESS)]
        targets = [1.0] * len(_GUESS)
        for known, batch, size in self._measured:
            exact, sizes = self._parts(known, batch)
            rows.append(sizes / (_REPEATS * size))
            targets.append((size - exact) / (_REPEATS * size))
        self._coefficients, _ = nnls(np.array(rows), np.array(targets))

    def predict(self, levels: Levels, micro_batch: int) -> int:
        """Bytes of one plan."""
        exact, sizes = self._parts(levels, micro_batch)
        return int(exact + sizes @ self._coefficients)

    def costs(self, micro_batch: int) -> Costs:
        """The same, for all plans of a micro-batch."""
        n = len(self.space)
        nothing = (FROZEN,) * n
        base = np.array([self._at(nothing, micro_batch, first) for first in range(n)])
        layer = np.array(
            [
                [
                    self._at(self.space.only(i, level), micro_batch, i) - self._at(nothing, micro_batch, i)
                    for level in range(len(LEVELS))
                ]
                for i in range(n)
            ]
        )
        return Costs(base, layer)

    def _at(self, levels: Levels, micro_batch: int, first: int) -> float:
        exact, sizes = self._parts(levels, micro_batch, first)
        return float(exact + sizes @ self._coefficients)

    def _parts(self, levels: Sequence[int], micro_batch: int, first: int | None = None) -> tuple[float, Floats]:
        """What is exact, and the sizes that the coefficients multiply."""
        layers = self.space.layers
        if first is None:
            first = next(i for i, level in enumerate(levels) if level != FROZEN)
        exact = micro_batch * self._sample_bytes + sum(self._exact[i, level] for i, level in enumerate(levels))
        per = 4.0 * micro_batch
        region = layers[first:]
        trained = [(layer, layer.share(level)) for layer, level in zip(layers, levels, strict=True) if level > BIAS]
        behind = layers[first + 1 :]
        sizes = [
            _CONSTANT,
            per * max(layer.inputs + layer.outputs + layer.columns for layer in layers),
            per * max(layer.inputs + layer.outputs + layer.columns for layer in region),
            per * sum(layer.outputs for layer in region),
            per * sum(layer.inputs * share for layer, share in trained),
            per * sum(layer.columns * share for layer, share in trained),
            4.0 * sum(self._weights(layer.weights) for layer in behind),
            4.0 * sum(self._weights(layer.weights) * share for layer, share in trained),
        ]
        return exact, np.array(sizes)

    def _weights(self, names: Sequence[str]) -> int:
        return sum(self.space.task.layout[n].size for n in names)

    def _trained_bytes(self, index: int, level: int) -> float:
        """The device's copy of whole trained parameters, and gradients and momentum of what is trained of them."""
        layout = self.space.task.layout
        total = 0
        for name, part in self.space.layers[index].trained(level).items():
            size = layout[name].size
            kept = size if part is None else size // layout[name].shape[part.axis] * len(part.indices)
            total += 4 * size + 8 * kept
        return float(total)
