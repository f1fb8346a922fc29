"""From a failing schedule to a short one that fails in the same way."""

from __future__ import annotations

from collections.abc import Callable

from .federation import Outcome
from .plan import Plan

__all__ = ["shrink"]


def shrink(plan: Plan, broken: str, run: Callable[[Plan], Outcome], most: int = 100) -> tuple[frozenset[int], Outcome]:
    """
    Leave out faults as long as the same invariant is broken without them.

    Args:
        plan: what failed.
        broken: the invariant.
        run: runs a plan.
        most: runs at the most.

    Returns:
        The places of the faults that are not needed, and the outcome without them.

    """
    left_out: frozenset[int] = frozenset()
    best = run(plan)
    size = max(len(plan.faults) // 2, 1)
    tries = 0
    while size >= 1 and tries < most:
        smaller = False
        rest = [index for index in range(len(plan.faults)) if index not in left_out]
        for start in range(0, len(rest), size):
            candidate = left_out | set(rest[start : start + size])
            if candidate == left_out or tries >= most:
                continue
            tries += 1
            outcome = run(plan.without(candidate))
            if any(problem.invariant == broken for problem in outcome.problems):
                left_out, best, smaller = candidate, outcome, True
        if not smaller:
            size //= 2
    return left_out, best
