"""What the programs of a run have inside: parameters that no tier trains, and what that takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..memory.measure import measure
from ..plan import Plan, frozen_in_all
from ..program.build import build
from ..task import Task

__all__ = ["Memory", "bake", "measure_plan"]

Memory = Callable[[Task, Plan], int]


def measure_plan(task: Task, plan: Plan) -> int:
    """What a plan's training step takes, in a fresh process."""
    return measure(build(task, plan, ("train_step",))).total_bytes


def bake(task: Task, plans: Sequence[Plan], *, memory: Memory = measure_plan) -> list[Plan]:
    """
    The plans of one run, with what none of them trains inside their programs, where every one takes less memory so.

    Static convolutions unroll nothing, but keep a packed copy of their weights: a net of few large layers may be
    better off without. A baked program fits no run whose frozen weights differ from the task's.

    Args:
        task: what is trained.
        plans: all plans of the run.
        memory: bytes of a plan's training step; measured by default.

    Returns:
        The plans in their order, baked or as they were.

    """
    names = frozen_in_all(task, plans)
    if not names:
        return list(plans)
    baked = [plan.bake(names) for plan in plans]
    leaner = all(memory(task, b) <= memory(task, p) for b, p in zip(baked, plans, strict=True))
    return baked if leaner else list(plans)
