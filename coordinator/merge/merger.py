"""One merge, from the buffer to the next weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Literal

import numpy as np

from mobile_sdk.layout import Vector

from .contribution import Contribution
from .optimisers import ServerOptimiser, ServerSgd, State
from .regions import WeightRegion, union
from .robust import clip_norms, outliers
from .robust_rules import RobustRule, centred_clipping, far_devices, trimmed_mean
from .rules import RESOLUTION, Direction, Rule, combine, fixed_examples, fixed_weight
from .squares import norm
from .staleness import BufferView, Constant, Distance, Exponential, Hinge, Polynomial, StalenessPolicy
from .sums import SumOnTheWay
from .votes import votes

__all__ = ["Difference", "MergeResult", "Merger", "trained_region"]

# What an update's delta is taken against: the version it was trained from (FedBuff), or the newest (FedAsync).
Difference = Literal["base", "current"]


@dataclasses.dataclass(frozen=True)
class MergeResult:
    """
    The next weights and optimiser state; the weight of each update that is in, by id; and who was left out.

    ``contributions`` are what was merged.
    """

    weights: Vector
    state: State
    counted: Mapping[str, float]
    outliers: frozenset[str]
    contributions: Sequence[Contribution] = ()


@dataclasses.dataclass(frozen=True)
class Merger:
    """
    What an operator decided about merging. Calling it is a pure function.

    Args:
        policy: staleness weights.
        rule: how updates become a direction; see :mod:`~coordinator.merge.rules` and
            :mod:`~coordinator.merge.robust_rules`.
        hostile: how many devices of a buffer a robust rule is to bear.
        min_holders: see :func:`~coordinator.merge.rules.combine`.
        min_contributors: distinct devices that must hold a coordinate for it to move.
        optimiser: what is done with the direction.
        clip_norm: updates are scaled down to this Euclidean norm; none: they are not.
        outlier_factor: updates this many times as far from the rest as the median one are left out; none: all are in.
        difference: ``current`` makes a stale update pull the weights towards where its device ended.

    """

    policy: StalenessPolicy = dataclasses.field(default_factory=Polynomial)
    rule: Rule | RobustRule = "holders"
    hostile: int = 1
    min_holders: float = 0.0
    min_contributors: int = 1
    optimiser: ServerOptimiser = dataclasses.field(default_factory=ServerSgd)
    clip_norm: float | None = None
    outlier_factor: float | None = None
    difference: Difference = "base"

    @property
    def needs_base(self) -> bool:
        """Whether the weights of earlier versions are looked at."""
        return self.difference == "current" or isinstance(self.policy, Distance)

    def weigh(self, contributions: Sequence[Contribution]) -> list[int] | None:
        """
        The integers that these updates will be multiplied with in one sum.

        Args:
            contributions: of the buffer, as they will be merged.

        Returns:
            None if that is not all that is done with them, or follows from more than their ages.

        """
        by_age = isinstance(self.policy, Constant | Exponential | Hinge | Polynomial)
        alone = self.rule not in {"holders", "fixed-K"} or self.clip_norm is not None or self.difference == "current"
        if alone or not by_age or self.outlier_factor is not None:
            return None
        weights = self.policy.weights(BufferView([c.staleness for c in contributions])).tolist()
        return [
            fixed_weight(weight * c.factor) * fixed_examples(c.examples)
            for weight, c in zip(weights, contributions, strict=True)
        ]

    def __call__(
        self,
        weights: Vector,
        state: State,
        contributions: Sequence[Contribution],
        at: Callable[[int], Vector],
        sums: Mapping[bytes, SumOnTheWay] = MappingProxyType({}),
    ) -> MergeResult:
        """
        Merge.

        Args:
            weights: float32, shape ``(size,)``; not changed.
            state: the optimiser's.
            contributions: at least one.
            at: gives the weights of an earlier version; called only where a setting needs it.
            sums: see :func:`~coordinator.merge.rules.combine`.

        """
        kept = sorted(contributions, key=lambda c: c.id)
        out = frozenset(outliers(kept, self.outlier_factor) if self.outlier_factor is not None else ())
        kept = [c for c in kept if c.id not in out]
        if self.rule == "multi-krum":
            examples = [fixed_examples(c.examples) for c in kept]
            far = far_devices(votes(kept, [1] * len(kept), examples, 1), self.hostile)
            out |= {c.id for c in kept if c.device in far}
            kept = [c for c in kept if c.device not in far]
        if self.difference == "current":
            kept = [_against(c, weights, at) if c.staleness else c for c in kept]
        if self.clip_norm is not None:
            kept = clip_norms(kept, self.clip_norm)

        def drift(index: int) -> float:
            c = kept[index]
            return norm(c.region.gather(weights).astype(np.float64) - c.region.gather(at(c.base)))

        taus = [c.staleness for c in kept]
        by_age = self.policy.weights(BufferView(taus, kept, len(weights), drift)).tolist()
        counts = [weight * c.factor for weight, c in zip(by_age, kept, strict=True)]
        direction = self._combine(len(weights), kept, counts, sums)
        moved, new_state = self.optimiser.apply(weights, state, direction, sum(taus) / len(taus))
        counted = {c.id: fixed_weight(count) / RESOLUTION for c, count in zip(kept, counts, strict=True)}
        return MergeResult(moved, new_state, counted, out, contributions)

    def _combine(
        self,
        size: int,
        kept: Sequence[Contribution],
        counts: Sequence[float],
        sums: Mapping[bytes, SumOnTheWay],
    ) -> Direction:
        match self.rule:
            case "trimmed-mean" | "median" | "multi-krum" | "centred-clipping":
                weights = [fixed_weight(count) for count in counts]
                ballot = votes(kept, weights, [fixed_examples(c.examples) for c in kept], RESOLUTION)
                if self.rule == "centred-clipping":
                    return centred_clipping(size, ballot, self.min_contributors)
                # Who is far is not among those any more, so there is nothing left to trim.
                trimmed = {"trimmed-mean": self.hostile, "median": None, "multi-krum": 0}[self.rule]
                return trimmed_mean(size, ballot, trimmed, self.min_contributors)
            case _:
                return combine(
                    size,
                    kept,
                    counts,
                    rule="fixed-K" if self.rule == "fixed-K" else "holders",
                    min_holders=self.min_holders,
                    min_contributors=self.min_contributors,
                    sums=sums,
                )


def _against(c: Contribution, weights: Vector, at: Callable[[int], Vector]) -> Contribution:
    """The same update as a difference to ``weights`` instead of its own version."""
    moved = c.region.gather(weights) - c.region.gather(at(c.base))
    return dataclasses.replace(c, delta=c.values() - moved, largest=None, length=None)


def trained_region(regions: Sequence[WeightRegion]) -> WeightRegion:
    """The union of all tiers' regions, sorted: the coordinates of the trained vector."""
    return WeightRegion(union([region.positions for region in regions]))
