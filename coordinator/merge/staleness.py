"""
How much an update counts: staleness policies.

A policy sees the whole buffer at once and keeps no state: the same buffer gives the same weights. Staleness (tau) is
the number of versions merged between the one that an update was trained from and the one that it is merged into.
Every policy gives 1 to fresh updates among fresh updates, on average over the buffer.
"""

from __future__ import annotations

import dataclasses
import decimal
import functools
import math
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from .contribution import Contribution
from .squares import norm, square_sum

__all__ = [
    "AgeVariance",
    "BufferView",
    "Constant",
    "Distance",
    "Exponential",
    "Hinge",
    "Polynomial",
    "StalenessPolicy",
    "Weights",
    "deviations",
]

Ages = npt.NDArray[np.int64]
Weights = npt.NDArray[np.float64]


def _no_drift(index: int) -> float:
    raise ValueError(f"the drift since the version of update {index} is not known here")


@dataclasses.dataclass(frozen=True)
class BufferView:
    """
    What a policy sees.

    ``staleness`` of each update; the ``contributions`` themselves; ``size`` of the vector that they refer to; and
    ``drift(k)``: how far the weights have moved since update k's version, the Euclidean distance over its coordinates.
    """

    staleness: Sequence[int]
    contributions: Sequence[Contribution] = ()
    size: int = 0
    drift: Callable[[int], float] = _no_drift


class StalenessPolicy(Protocol):
    """A pure function of the buffer."""

    def weights(self, buffer: BufferView) -> Weights:
        """The weight of each update, float64, shape ``(len(buffer.staleness),)``, at least 0."""
        ...

    def by_age(self, staleness: Ages) -> Weights:
        """That part of the weights that staleness alone decides: integers in, float64 of the same shape out."""
        ...


@dataclasses.dataclass(frozen=True)
class Constant:
    """``s = 1``: staleness does not matter."""

    def weights(self, buffer: BufferView) -> Weights:
        return self.by_age(_ages(buffer))

    def by_age(self, staleness: Ages) -> Weights:
        return np.ones(len(staleness))


@dataclasses.dataclass(frozen=True)
class Polynomial:
    """``s = (1 + tau)^-exponent``; 1/2 is FedBuff's (Nguyen et al. 2022)."""

    exponent: float = 0.5

    def weights(self, buffer: BufferView) -> Weights:
        return self.by_age(_ages(buffer))

    def by_age(self, staleness: Ages) -> Weights:
        return _each(staleness, lambda tau: _power(1 + tau, -self.exponent))


@dataclasses.dataclass(frozen=True)
class Hinge:
    """``s = 1`` up to ``threshold``, then ``1 / (slope * (tau - threshold) + 1)`` (FedAsync, Xie et al. 2019)."""

    slope: float = 10.0
    threshold: int = 4

    def weights(self, buffer: BufferView) -> Weights:
        return self.by_age(_ages(buffer))

    def by_age(self, staleness: Ages) -> Weights:
        return 1.0 / (self.slope * np.maximum(staleness - self.threshold, 0) + 1.0)


@dataclasses.dataclass(frozen=True)
class Exponential:
    """``s = exp(-rate * tau)``."""

    rate: float = 0.1

    def weights(self, buffer: BufferView) -> Weights:
        return self.by_age(_ages(buffer))

    def by_age(self, staleness: Ages) -> Weights:
        return _each(staleness, lambda tau: _exponential(tau, -self.rate))


@dataclasses.dataclass(frozen=True)
class AgeVariance:
    """
    Age times agreement; of this project's own making, not the formula of the FTTE paper, which is not public.

    ``s_k = (1 + tau_k)^-exponent * b_k`` with ``b_k = c_k / mean_j c_j`` and ``c_k = 1 / (1 + beta v_k / mean_j v_j)``,
    where ``v_k`` is the mean squared deviation of update k from the buffer's mean over the coordinates that it shares
    with others. The ``b_k`` have mean 1, so noise is moved from one update to another, never the step made smaller;
    a buffer of one, or of equals, gives ``b = 1``.
    """

    exponent: float = 0.5
    beta: float = 1.0

    def weights(self, buffer: BufferView) -> Weights:
        v = deviations(buffer.size, buffer.contributions)
        mean = math.fsum(v) / len(v) if len(v) else 0.0  # rounded once, whatever the order
        c = 1.0 / (1.0 + self.beta * v / mean) if mean > 0 else np.ones(len(v))
        weights: Weights = self.by_age(_ages(buffer)) * (c / (math.fsum(c) / max(len(c), 1)))
        return weights

    def by_age(self, staleness: Ages) -> Weights:
        return Polynomial(self.exponent).by_age(staleness)


@dataclasses.dataclass(frozen=True)
class Distance:
    """
    ``s = 1 / (1 + gamma / scale)`` with ``gamma = ||w_t - w_(t - tau)|| / ||delta||`` (AsyncFedED, Wang et al. 2022).

    Their step is ``lambda / (gamma + epsilon)``; with ``lambda = epsilon = scale`` a fresh update counts 1, and
    ``merge.learning_rate`` is what lambda was. An update that moves nothing counts 1, and nothing.
    """

    scale: float = 1.0

    def weights(self, buffer: BufferView) -> Weights:
        weights = np.ones(len(buffer.contributions))
        for k, c in enumerate(buffer.contributions):
            length = norm(c.values())
            if c.staleness and length:
                weights[k] = 1.0 / (1.0 + buffer.drift(k) / length / self.scale)
        return weights

    def by_age(self, staleness: Ages) -> Weights:
        return np.ones(len(staleness))  # what counts is how far the weights moved, which ages do not say


# Powers and exponentials of processors differ in their last bit, so these are computed in decimals. Ages are small
# whole numbers, and the same ones come at every start and with every merge.
_DECIMALS = decimal.Context(prec=28)


@functools.lru_cache(maxsize=4096)
def _power(base: int, exponent: float) -> float:
    with decimal.localcontext(_DECIMALS):
        return float(decimal.Decimal(base) ** decimal.Decimal(exponent))


@functools.lru_cache(maxsize=4096)
def _exponential(tau: int, rate: float) -> float:
    with decimal.localcontext(_DECIMALS):
        return float((decimal.Decimal(rate) * tau).exp())


def _each(staleness: Ages, function: Callable[[int], float]) -> Weights:
    """A function of every age."""
    known = {tau: function(tau) for tau in set(staleness.tolist())}
    return np.array([known[tau] for tau in staleness.tolist()], np.float64)


def _ages(buffer: BufferView) -> Ages:
    return np.asarray(buffer.staleness, np.int64)


def deviations(size: int, contributions: Sequence[Contribution]) -> Weights:
    """
    How far each update lies from the others.

    Args:
        size: length of the vector that regions refer to.
        contributions: the buffer.

    Returns:
        Mean squared deviation from the (unweighted) mean of the buffer, over the coordinates that at least two updates
        hold; 0 for an update that shares none. float64, shape ``(len(contributions),)``.

    """
    total = np.zeros(size)  # elements are added in the order of ids, which is the same everywhere
    holders = np.zeros(size, np.int32)
    for c in sorted(contributions, key=lambda c: c.id):
        c.region.add(c.values(), total)
        c.region.add(1, holders)
    shared = holders > 1
    np.divide(total, holders, out=total, where=shared)
    result = np.zeros(len(contributions))
    for k, c in enumerate(contributions):
        mine = c.region.gather(shared)
        count = int(mine.sum())
        if count:
            result[k] = square_sum((c.values() - c.region.gather(total))[mine]) / count
    return result
