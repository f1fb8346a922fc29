"""
The plan of one budget.

Candidates are predicted to fit, built, and measured: the prediction learns from each, until one fits. What is left of
the budget goes to single layers. Scores that have rivals let each of them settle the budget too, and the plan that does
best in a fine-tuning is taken.
"""

from __future__ import annotations

import dataclasses

from ..errors import BudgetError
from ..importance import Scores
from ..importance.contribution import merits
from ..importance.evidence import Evidence
from ..plan import Plan
from ..space import FROZEN, Levels
from .candidates import candidates
from .fit_budget import FULL, fit_budget
from .least_budget import too_small
from .measurements import Measurements

__all__ = ["Search", "PlannedTier"]

# Layers that are raised one at a time to use what is left, if they are predicted to fit so many times the budget: where
# there is much room, predictions are off.
_RAISES = 8
_HOPE = 1.25
# Finalists of several selectors are fine-tuned so many times as long as a single layer was.
_LONGEST = 10


@dataclasses.dataclass(frozen=True)
class PlannedTier:
    """
    A budget and the plan that was found for it.

    Args:
        budget: bytes.
        plan: what is trained.
        levels: the same, one level per layer.
        needs: bytes that it was measured to take, with a margin for repetition.
        gain: what the selector expects of it, in the unit of its scores.

    """

    budget: int
    plan: Plan
    levels: Levels
    needs: int
    gain: float


class Search:
    """
    How budgets are settled.

    Args:
        evidence: space, seed, processors, journal.
        scores: what layers are expected to add.
        measurements: of plans in this space, and what they predict.
        top: the largest plan that may be taken, one level per layer.
        shrink: whether a smaller micro-batch is taken where it trains more, or only where nothing fits otherwise.

    """

    def __init__(
        self, evidence: Evidence, scores: Scores, measurements: Measurements, top: Levels, shrink: bool
    ) -> None:
        self.evidence = evidence
        self.space = evidence.space
        self.scores = scores
        self.measurements = measurements
        self.top = top
        self.shrink = shrink

    def settle(self, budget: int, floor: Levels) -> PlannedTier:
        """
        The best tier of a budget that has ``floor`` inside it.

        Args:
            budget: bytes, as measured.
            floor: levels that the tier trains at least.

        Raises:
            BudgetError: if not even the floor, a sample at a time, fits the budget.

        """
        try:
            # Two measurements of one program differ by up to a per cent, and the program is measured again.
            return dataclasses.replace(self._settle(budget - budget // 100, floor), budget=budget)
        except BudgetError:
            return self._settle(budget, floor)

    def _settle(self, budget: int, floor: Levels) -> PlannedTier:
        size = self.space.task.micro_batch
        if self.top == self._whole() and self.measurements.everything(size) <= budget:
            return self._everything(budget, size)
        found: PlannedTier | None = None
        smallest: list[int] = []
        while size >= self.space.task.least_micro_batch:
            least = floor if any(floor) else self._last()
            needs = self.measurements(least, size)
            smallest.append(needs)
            if needs <= budget:
                tier = self._at(budget, floor, size) or self._raised(self._tier(budget, least, size), budget, size)
                # Fewer samples per step cost time: only for a gain that is worth it. Everything is worth it: what few
                # tiers train learns from few devices, however little a selector expects of it.
                whole = tier.levels == self.top
                if found is None or whole or tier.gain > found.gain + 0.02 * abs(found.gain):
                    found = tier
                if not self.shrink or found.levels == self.top:
                    break
            size //= 2
        if found is not None:
            return found
        raise too_small(self.space.task, budget, min(smallest))

    def _at(self, budget: int, floor: Levels, size: int) -> PlannedTier | None:
        """The best plan that was measured within the budget at this micro-batch."""
        if self.scores.chain:
            return self._chain(budget, floor, size)
        own = self._summed(budget, floor, size)
        if not self.scores.rivals:
            return own
        searches = (Search(self.evidence, r, self.measurements, self.top, self.shrink) for r in self.scores.rivals)
        found = {t.levels: t for t in (own, *(search._at(budget, floor, size) for search in searches)) if t is not None}
        if len(found) < 2:
            return own or next(iter(found.values()), None)
        reached = merits(self.evidence, "fine-tuning finalists", list(found), _LONGEST)
        best = max(zip(reached, found, strict=True), key=lambda pair: pair[0])[1]
        return dataclasses.replace(found[best], gain=self.scores.of(best))

    def _summed(self, budget: int, floor: Levels, size: int) -> PlannedTier | None:
        """The best plan by the sum of its layers' gains."""
        measurements = self.measurements
        measurements.calibrate(size)
        best = fit_budget(
            budget,
            propose=lambda limit: candidates(
                self.evidence, self.scores, measurements.model.costs(size), (floor, self.top), limit
            ),
            measure=lambda levels: measurements(levels, size),
            predict=lambda levels: measurements.model.predict(levels, size),
            gain=self.scores.of,
        )
        return None if best is None else self._raised(self._tier(budget, best.levels, size), budget, size)

    def _raised(self, tier: PlannedTier, budget: int, size: int) -> PlannedTier:
        """The plan with single layers at higher levels, those of the largest gain first, while there is room."""
        tried: set[Levels] = set()
        for _ in range(_RAISES):
            if tier.needs >= FULL * budget:
                break
            more = [levels for levels in self._next(tier.levels) if levels not in tried]
            fitting = [m for m in more if self.measurements.model.predict(m, size) <= _HOPE * budget]
            if not fitting:
                break
            levels = max(fitting, key=self.scores.of)
            tried.add(levels)
            if self.measurements(levels, size) <= budget:
                tier = self._tier(budget, levels, size)
        return tier

    def _next(self, levels: Levels) -> list[Levels]:
        """The plans with one layer at a higher level, which adds to their gain."""
        return [
            raised
            for at, (layer, top) in enumerate(zip(self.space.layers, self.top, strict=True))
            for level in layer.levels
            if levels[at] < level <= top
            and self.scores.of(raised := (*levels[:at], level, *levels[at + 1 :])) > self.scores.of(levels)
        ]

    def _chain(self, budget: int, floor: Levels, size: int) -> PlannedTier | None:
        """The last layers, as many as fit: memory grows with them, so a bisection finds how many."""
        first = next(i for i, level in enumerate(self.top) if level != FROZEN)
        fits, fails = 0, len(self.top) - first + 1
        while fails - fits > 1:
            middle = (fits + fails) // 2
            if self.measurements(self._last_layers(middle, floor), size) <= budget:
                fits = middle
            else:
                fails = middle
        levels = self._last_layers(fits, floor)
        return self._tier(budget, levels, size) if any(levels) else None

    def _last_layers(self, count: int, floor: Levels) -> Levels:
        """The last ``count`` layers, with ``floor`` and within ``top``."""
        bounds = zip(self.space.last(count), floor, self.top, strict=True)
        return tuple(max(least, min(level, most)) for level, least, most in bounds)

    def _tier(self, budget: int, levels: Levels, size: int) -> PlannedTier:
        plan = self.measurements.plan(levels, size)
        return PlannedTier(budget, plan, levels, self.measurements(levels, size), self.scores.of(levels))

    def _last(self) -> Levels:
        """The last layer that may be trained, and nothing else."""
        index = max(i for i, level in enumerate(self.top) if level != FROZEN)
        return self.space.only(index, self.top[index])

    def _whole(self) -> Levels:
        return self.space.last(len(self.space))

    def _everything(self, budget: int, size: int) -> PlannedTier:
        levels = self._whole()
        plan = Plan.everything(self.space.task, size)
        return PlannedTier(budget, plan, levels, self.measurements.everything(size), self.scores.of(levels))
