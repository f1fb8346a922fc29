"""
How much an update counts, by its staleness.

A policy sees the whole buffer at once and keeps no state: the same buffer gives the same weights.
Every policy gives 1 to a fresh update. Staleness (tau) is the number of versions merged between the one
that an update was trained from and the one that it is merged into.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

__all__ = ["Constant", "Exponential", "Hinge", "Polynomial", "StalenessPolicy"]

Weights = npt.NDArray[np.float64]


class StalenessPolicy(Protocol):
    """A pure function of the buffer."""

    def weights(self, staleness: Sequence[int]) -> Weights:
        """The weight of each update of the buffer, float64, shape ``(len(staleness),)``, in (0, 1]."""
        ...


@dataclasses.dataclass(frozen=True)
class Constant:
    """``s = 1``: staleness does not matter."""

    def weights(self, staleness: Sequence[int]) -> Weights:
        return np.ones(len(staleness))


@dataclasses.dataclass(frozen=True)
class Polynomial:
    """``s = (1 + tau)^-exponent``; 1/2 is FedBuff's (Nguyen et al. 2022)."""

    exponent: float = 0.5

    def weights(self, staleness: Sequence[int]) -> Weights:
        return (1.0 + np.asarray(staleness, np.float64)) ** -self.exponent


@dataclasses.dataclass(frozen=True)
class Hinge:
    """``s = 1`` up to ``threshold``, then ``1 / (slope * (tau - threshold) + 1)`` (FedAsync, Xie et al. 2019)."""

    slope: float = 10.0
    threshold: int = 4

    def weights(self, staleness: Sequence[int]) -> Weights:
        beyond = np.maximum(np.asarray(staleness, np.float64) - self.threshold, 0.0)
        return 1.0 / (self.slope * beyond + 1.0)


@dataclasses.dataclass(frozen=True)
class Exponential:
    """``s = exp(-rate * tau)``."""

    rate: float = 0.1

    def weights(self, staleness: Sequence[int]) -> Weights:
        return np.exp(-self.rate * np.asarray(staleness, np.float64))
