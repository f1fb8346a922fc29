"""What a program will take is known before it is emitted, and is what a device then measures."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporters import Plan, Program, Task, load_task
from exporters.memory.arena import Block, arena
from exporters.memory.measure import measure
from exporters.memory.predict import predict
from exporters.program.build import build
from exporters.space import Space
from exporters.zoo import TASKS
from mobile_sdk.layout import Slice, Subset

QUICK = {"mlp", "motion", "lenet"}


def blocks() -> st.SearchStrategy[list[Block]]:
    def block(size: int, first: int, length: int) -> Block:
        return Block(size, first, first + length)

    return st.lists(st.builds(block, st.integers(0, 100), st.integers(0, 9), st.integers(0, 9)), max_size=25)


@given(blocks())
def test_an_arena_holds_what_lives_at_once_and_no_more_than_everything(tensors: Any) -> None:
    alive = [sum(b.size for b in tensors if b.first <= step <= b.last) for step in range(20)]
    assert max(alive) <= arena(tensors) <= sum(b.size for b in tensors)


def test_tensors_that_never_meet_share_memory() -> None:
    assert arena([Block(100, 0, 1), Block(60, 2, 3), Block(40, 2, 5)]) == 100


def test_the_smallest_gap_that_holds_a_tensor_is_taken() -> None:
    """Below the large tensor a gap of 50 is free in step 2, and above the middle one everything."""
    assert arena([Block(100, 0, 2), Block(50, 0, 1), Block(30, 1, 2), Block(20, 2, 2)]) == 180


@pytest.mark.parametrize("part", ["whole", "half", "last"])
@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.full) for n in TASKS])
def test_a_prediction_is_what_is_measured(name: str, part: str) -> None:
    """Within a tenth or 1 MB, on every task, whatever is frozen; and part by part, the delegates' share apart."""
    task = load_task(TASKS[name])
    space = Space(task)
    count = {"whole": len(space), "half": max(1, len(space) // 2), "last": 1}[part]
    plan = space.plan(space.last(count), task.micro_batch)
    predicted, measured = predict(task, plan), measure(build(task, plan, ("train_step",)))
    assert predicted.total_bytes == pytest.approx(measured.total_bytes, rel=0.1, abs=1e6)
    for field in ("trained_bytes", "gradient_bytes", "optimiser_bytes", "batch_bytes", "mapped_bytes"):
        assert getattr(predicted, field) == getattr(measured, field)
    assert predicted.arena_bytes == pytest.approx(measured.arena_bytes, rel=0.02, abs=64_000)


def test_the_parts_of_a_measurement_are_its_total(tiny: Task, tiny_program: Program) -> None:
    footprint = measure(tiny_program)
    parts = ("arena", "workspace", "trained", "gradient", "optimiser", "batch")
    assert sum(getattr(footprint, f"{part}_bytes") for part in parts) == footprint.total_bytes
    assert footprint.trained_bytes == footprint.optimiser_bytes == tiny.layout.nbytes
    assert footprint.workspace_bytes > 0
    assert footprint.idle_bytes > 10_000_000


def test_a_slice_is_predicted_with_its_compact_gradient(tiny: Task) -> None:
    plan = Plan(Subset(tiny.layout, {"0.weight": Slice(0, (1, 3))}), 4)
    predicted = predict(tiny, plan)
    assert predicted.gradient_bytes == predicted.optimiser_bytes == 4 * plan.subset.size
    assert predicted.trained_bytes == 4 * tiny.layout["0.weight"].size
    assert predicted.mapped_bytes == tiny.layout.nbytes - predicted.trained_bytes
