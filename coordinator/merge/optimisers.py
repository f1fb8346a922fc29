"""
Server optimisers: what the coordinator does with the direction of a merge.

State is float32 vectors by name, as long as the weights. It is part of a version: written down with it, and gone
back to with it. Where a direction has no value, weights and state stay as they are, bit for bit.

**Momentum and asynchrony.** Momentum b is a delay line: the directions in a moving average are on average
``b / (1 - b)`` merges old. In an asynchronous run they are old already when they come: tau merges on average. Both add
up (asynchrony acts as momentum: Mitliagkas et al. 2016), and the sum is what makes runs oscillate. So the operator's
momentum is read as the total, and what asynchrony brings is taken off: b' with
``b' / (1 - b') = max(0, b / (1 - b) - tau)``. Averages are used instead of sums, so the length of a step does not
depend on b'.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Protocol

import numpy as np
import numpy.typing as npt

from mobile_sdk.layout import Vector

from .rules import Direction
from .sums import BLOCK

__all__ = ["ServerAdam", "ServerMomentum", "ServerOptimiser", "ServerSgd", "State", "corrected"]

State = Mapping[str, Vector]


class ServerOptimiser(Protocol):
    """A pure function: state goes in and comes out."""

    def apply(self, weights: Vector, state: State, direction: Direction, staleness: float) -> tuple[Vector, State]:
        """
        One step.

        Args:
            weights: float32, shape ``(size,)``; not changed.
            state: what the last step gave; empty before the first.
            direction: of the merge.
            staleness: mean staleness of the updates in it, in versions.

        Returns:
            New weights and new state.

        """
        ...


@dataclasses.dataclass(frozen=True)
class ServerSgd:
    """``w += eta d``: FedAvg and FedBuff at eta = 1."""

    learning_rate: float = 1.0

    def apply(self, weights: Vector, state: State, direction: Direction, staleness: float) -> tuple[Vector, State]:
        return _moved(weights, direction, self.learning_rate, direction.values), {}


@dataclasses.dataclass(frozen=True)
class ServerMomentum:
    """``m = b' m + (1 - b') d``, ``w += eta m``; b' is ``momentum`` less what asynchrony brings, if ``correct``."""

    learning_rate: float = 1.0
    momentum: float = 0.9
    correct: bool = True

    def apply(self, weights: Vector, state: State, direction: Direction, staleness: float) -> tuple[Vector, State]:
        b = corrected(self.momentum, staleness) if self.correct else self.momentum
        mean, values = _averaged(state.get("mean"), weights, direction, direction.values, b)
        return _moved(weights, direction, self.learning_rate, values), {"mean": mean}


@dataclasses.dataclass(frozen=True)
class ServerAdam:
    """
    FedAdam (Reddi et al. 2021, algorithm 2): ``m`` as in :class:`ServerMomentum`, ``v = beta2 v + (1 - beta2) d^2``,
    ``w += eta m / (sqrt(v) + epsilon)``, with ``v`` beginning at ``epsilon^2`` and no bias correction, as in the paper.
    """

    learning_rate: float = 0.01
    momentum: float = 0.9
    beta2: float = 0.99
    epsilon: float = 1e-3
    correct: bool = True

    def apply(self, weights: Vector, state: State, direction: Direction, staleness: float) -> tuple[Vector, State]:
        b = corrected(self.momentum, staleness) if self.correct else self.momentum
        start = np.full(weights.shape, self.epsilon * self.epsilon, np.float32)
        mean, values = _averaged(state.get("mean"), weights, direction, direction.values, b)
        square, squares = _averaged(
            state.get("square", start), weights, direction, np.square(direction.values), self.beta2
        )
        values = values / (np.sqrt(squares) + self.epsilon)
        return _moved(weights, direction, self.learning_rate, values), {"mean": mean, "square": square}


def corrected(momentum: float, staleness: float) -> float:
    """The explicit momentum that makes, with updates that are ``staleness`` versions old, ``momentum`` in all."""
    age = max(0.0, momentum / (1.0 - momentum) - staleness)
    return age / (1.0 + age)


def _averaged(
    old: Vector | None, weights: Vector, direction: Direction, values: npt.NDArray[np.float64], b: float
) -> tuple[Vector, npt.NDArray[np.float64]]:
    """A moving average, updated where the direction has values: the whole, and its part there in float64."""
    new = np.zeros_like(weights) if old is None else old.copy()
    part = b * direction.region.gather(new).astype(np.float64) + (1.0 - b) * values
    direction.region.scatter(part.astype(np.float32), new)
    return new, part


def _moved(weights: Vector, direction: Direction, rate: float, values: npt.NDArray[np.float64]) -> Vector:
    moved = weights.copy()
    for piece in direction.region.pieces:
        part = values[piece.start : piece.stop]
        if not isinstance(piece.where, slice):
            moved[piece.where] += rate * part
            continue
        target = moved[piece.where]
        for start in range(0, len(part), BLOCK):  # what is computed on the way stays in the cache
            target[start : start + BLOCK] += rate * part[start : start + BLOCK]
    return moved
