"""The best plan within a budget, where what a plan needs is predicted first and measured then."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

from ..space import Levels

__all__ = ["FULL", "Fitted", "fit_budget"]

# Plans that are measured per budget before the best that fitted is taken; and while none has fitted yet.
_ROUNDS = 6
_MOST_ROUNDS = 16
# A plan that takes this much of its budget is not improved further.
FULL = 0.95


@dataclasses.dataclass(frozen=True)
class Fitted:
    """A plan that was measured within the budget: its levels, the bytes it needs, and what it is expected to gain."""

    levels: Levels
    needs: int
    gain: float


def fit_budget(
    budget: int,
    *,
    propose: Callable[[float], Levels | None],
    measure: Callable[[Levels], int],
    predict: Callable[[Levels], float],
    gain: Callable[[Levels], float],
) -> Fitted | None:
    """
    The plan of the largest gain among those that were proposed and measured within a budget.

    Args:
        budget: bytes.
        propose: the best plan that is predicted to need at most so many bytes, or None.
        measure: bytes that a plan needs. Each measurement may change what ``propose`` and ``predict`` say.
        predict: bytes that a plan is predicted to need.
        gain: what is expected of a plan.

    """
    best: Fitted | None = None
    limit = float(budget)
    tried: set[Levels] = set()
    stretch = 1.0
    for round_ in range(_MOST_ROUNDS):
        if round_ >= _ROUNDS and best is not None:
            break
        levels = propose(limit)
        if levels is None:
            break
        if levels in tried:
            # The prediction says that no more fits, and there is room: see what it would give for a little more.
            if best is None or best.levels != levels or stretch > 1:
                break
            stretch = math.sqrt(budget / best.needs)
            limit = budget * stretch
            continue
        needs = measure(levels)
        tried.add(levels)
        if needs <= budget:
            fitted = Fitted(levels, needs, gain(levels))
            best = fitted if best is None or fitted.gain > best.gain else best
            if needs >= FULL * budget or limit < budget:
                break
        elif stretch > 1:
            break
        else:
            limit = _lower(limit, round_, predict(levels), needs, budget)
    return best


def _lower(limit: float, round_: int, predicted: float, needs: int, budget: int) -> float:
    """
    What to ask for after a plan needed too much.

    The measurement is in the prediction now; where that did not move it enough, ask for less: in small steps, so as not
    to pass by what fits, and in larger ones once those have led nowhere.
    """
    limit *= 0.97 if round_ < _ROUNDS - 1 else 0.9
    return min(limit, predicted * budget / needs) if predicted <= budget else limit
