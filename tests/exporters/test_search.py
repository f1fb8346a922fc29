"""The search finds the largest plan that a device's memory allows, and says so where there is none."""

from __future__ import annotations

import pytest
import torch
from export_tasks import task_of
from torch import nn

from exporters import BudgetError, Plan, Task, export
from exporters.measure import measure
from exporters.program import build
from exporters.search import plan_for
from exporters.space import Space


@pytest.fixture(scope="module")
def wide() -> Task:
    """Three layers whose memory differs by megabytes, so that budgets tell them apart."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(72, 4000), nn.ReLU(), nn.Linear(4000, 60), nn.ReLU(), nn.Linear(60, 3)
    )
    return task_of(model)


@pytest.fixture(scope="module")
def needed(wide) -> list[int]:
    """Measured bytes of training the last layer, the last two, and all three."""
    space = Space(wide)
    plans = [space.plan(space.last(count), 4) for count in (1, 2, 3)]
    return [measure(build(wide, plan, ("train_step",))).total_bytes for plan in plans]


def test_more_layers_take_more_memory(needed):
    assert needed[0] < needed[1] < needed[2]


def test_a_measurement_repeats(wide, needed):
    again = measure(build(wide, Plan.everything(wide), ("train_step",))).total_bytes
    assert again == pytest.approx(needed[2], rel=0.03)


def test_the_footprint_counts_copies_gradients_and_momentum(wide, needed):
    footprint = measure(build(wide, Plan.everything(wide), ("train_step",)))
    assert footprint.trained_bytes == footprint.gradient_bytes == footprint.optimiser_bytes == wide.layout.nbytes
    assert footprint.workspace_bytes > 0
    assert footprint.total_bytes > 3 * wide.layout.nbytes


def test_frozen_weights_are_not_counted(wide, needed):
    """The first layer alone is 1.2 MB; training the last one leaves it in its file."""
    assert needed[0] < wide.layout.nbytes


def test_an_export_for_a_budget_measures_within_it(wide, needed):
    budget = (needed[1] + needed[2]) // 2
    program = export(wide, budget=budget)
    assert program.manifest.memory.budget_bytes == budget
    assert needed[0] < program.manifest.memory.measured_bytes <= budget
    assert set(program.plan.subset) == {"3.weight", "3.bias", "5.weight", "5.bias"}


def test_the_plan_of_a_smaller_budget_lies_inside_that_of_a_larger_one(wide, needed):
    budgets = [int(needed[0] * 1.1), (needed[1] + needed[2]) // 2, needed[2] * 2]
    plans = [set(plan_for(wide, budget).subset) for budget in budgets]
    assert plans[0] < plans[1] < plans[2] == set(wide.parameter_names())


def test_too_small_a_budget_is_refused_with_the_smallest_that_works():
    torch.manual_seed(0)
    task = task_of(nn.Sequential(nn.Flatten(), nn.Linear(72, 3)), batch=2)
    lines: list[str] = []
    with pytest.raises(BudgetError) as refused:
        plan_for(task, 1000, progress=lines.append)
    assert "set at least that" in str(refused.value)
    assert lines[-1] == "measuring memory: 1 of 1"
    assert plan_for(task, refused.value.smallest_bytes).micro_batch <= 2


def test_a_budget_below_the_last_layers_lowers_the_micro_batch():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 16, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 576, 3))
    task = task_of(model, (2, 24, 24), batch=32)
    space = Space(task)
    head = space.subset(space.last(1))
    full = measure(build(task, Plan(head, 32), ("train_step",))).total_bytes
    plan = plan_for(task, full // 2)
    assert plan.subset == head
    assert plan.micro_batch < 32
