"""The search finds the largest plan that a device's memory allows, and says so where there is none."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from exporters import BudgetError, ExportError, Plan, Task, export
from exporters.importance import Scores
from exporters.memory.measure import measure
from exporters.program.build import build
from exporters.search import Measurements, Tiers, evidence_of, plan_for, plan_tiers, select
from exporters.search.memory_model import Costs, MemoryModel
from exporters.search.one_budget import Search
from exporters.search.plan_files import load, save
from exporters.space import BIAS, FROZEN, LEVELS, WHOLE, Levels, Space
from tests.exporters.export_tasks import few_samples, task_of, wide_task


@pytest.fixture(scope="module")
def wide() -> Task:
    return wide_task()


@pytest.fixture(scope="module")
def needed(wide: Task) -> list[int]:
    """Measured bytes of training the last layer, the last two, and all three."""
    space = Space(wide)
    plans = [space.plan(space.last(count), 4) for count in (1, 2, 3)]
    return [measure(build(wide, plan, ("train_step",))).total_bytes for plan in plans]


def test_more_layers_take_more_memory(needed: Any) -> None:
    assert needed[0] < needed[1] < needed[2]


def test_a_measurement_repeats(wide: Task, needed: Any) -> None:
    again = measure(build(wide, Plan.everything(wide), ("train_step",))).total_bytes
    assert again == pytest.approx(needed[2], rel=0.03)


def test_the_footprint_counts_copies_gradients_and_momentum(wide: Task, needed: Any) -> None:
    footprint = measure(build(wide, Plan.everything(wide), ("train_step",)))
    assert footprint.trained_bytes == footprint.gradient_bytes == footprint.optimiser_bytes == wide.layout.nbytes
    assert footprint.workspace_bytes > 0
    assert footprint.total_bytes > 3 * wide.layout.nbytes


def test_frozen_weights_are_not_counted(wide: Task, needed: Any) -> None:
    """The first layer alone is 1.2 MB; training the last one leaves it in its file."""
    assert needed[0] < wide.layout.nbytes


def test_an_export_for_a_budget_measures_within_it(wide: Task, needed: Any) -> None:
    budget = (needed[1] + needed[2]) // 2
    program = export(wide, budget=budget)
    assert program.manifest.memory.budget_bytes == budget
    assert needed[0] < program.manifest.memory.measured_bytes <= budget
    # All of the first layer's weights have no room; its bias and some of its columns may have.
    assert {"3.weight", "3.bias", "5.weight", "5.bias"} <= set(program.plan.subset)
    assert "1.weight" not in program.plan.subset or program.plan.subset["1.weight"] is not None


def test_the_plan_of_a_smaller_budget_lies_inside_that_of_a_larger_one(wide: Task, needed: Any) -> None:
    budgets = [int(needed[0] * 1.1), (needed[1] + needed[2]) // 2, needed[2] * 2]
    plans = [plan_for(wide, budget).subset for budget in budgets]
    assert set(plans[0]) <= set(plans[1]) <= set(plans[2]) == set(wide.parameter_names())
    assert plans[0].size < plans[1].size < plans[2].size == wide.layout.size


@pytest.fixture(scope="module")
def nested(wide: Task, needed: Any) -> Tiers:
    """Three tiers by Fisher information."""
    evidence = evidence_of(wide, samples=few_samples(), processes=1)
    budgets = [int(needed[0] * 1.2), int(needed[1] * 1.1), int(needed[2] * 0.9)]
    return plan_tiers(evidence, select(evidence, "fisher"), budgets)


def test_nested_tiers_lie_inside_each_other_and_measure_within_their_budgets(wide: Task, nested: Any) -> None:
    trained = [set(tier.plan.subset.positions().tolist()) for tier in nested.tiers]
    assert trained[0] < trained[1] < trained[2]
    for tier in nested.tiers:
        assert measure(build(wide, tier.plan, ("train_step",))).total_bytes <= tier.budget
        assert tier.needs <= tier.budget < nested.everything
        assert nested.space.level_of(tier.plan.subset) == tier.levels


def test_what_the_largest_plan_freezes_is_not_trained_to_predict_the_smaller_ones(wide: Task) -> None:
    evidence = evidence_of(wide, samples=few_samples(), processes=1)
    measurements = Measurements(evidence, baked=("1.weight", "1.bias"))
    measurements.calibrate(wide.micro_batch)
    measured = [levels for levels, _, _ in measurements._known if levels is not None]
    assert len(measured) > 1
    assert all(levels[0] == FROZEN for levels in measured)


def test_what_is_left_of_a_budget_is_used(wide: Task) -> None:
    """Predictions are off by more than a bias takes, so it is tried; no layer can be raised further."""
    evidence = evidence_of(wide, samples=few_samples(), processes=1)
    measurements = Measurements(evidence)
    budget = int(measurements((FROZEN, BIAS, WHOLE), wide.micro_batch) * 1.1)
    scores = select(evidence, "fisher")
    (tier,) = plan_tiers(evidence, scores, [budget], mode="common", measurements=measurements).tiers
    assert tier.levels == (FROZEN, BIAS, WHOLE)
    for levels in ((FROZEN, BIAS + 1, WHOLE), (BIAS, BIAS, WHOLE)):
        assert measurements(levels, wide.micro_batch) > budget


class Forgetful(MemoryModel):
    """Knows what was measured, and believes that everything else takes half of what it does."""

    def __init__(self, space: Space) -> None:
        super().__init__(space)
        self.measured: dict[tuple[Levels, int], int] = {}

    def learn(self, levels: Levels, micro_batch: int, measured_bytes: int) -> None:
        super().learn(levels, micro_batch, measured_bytes)
        self.measured[levels, micro_batch] = measured_bytes

    def predict(self, levels: Levels, micro_batch: int) -> int:
        return self.measured.get((levels, micro_batch)) or super().predict(levels, micro_batch) // 2

    def costs(self, micro_batch: int) -> Costs:
        true = super().costs(micro_batch)
        return Costs(true.base / 2, true.layer / 2)


@pytest.mark.full
def test_a_budget_is_used_however_wrong_predictions_are() -> None:
    hidden = [part for _ in range(6) for part in (nn.Linear(200, 200), nn.ReLU())]
    task = task_of(nn.Sequential(nn.Flatten(), nn.Linear(72, 200), nn.ReLU(), *hidden, nn.Linear(200, 3)))
    evidence = evidence_of(task, samples=few_samples(), processes=1)
    measurements = Measurements(evidence)
    measurements.model = Forgetful(evidence.space)
    budget = measurements(evidence.space.last(3), task.micro_batch)
    (tier,) = plan_tiers(evidence, select(evidence, "fisher"), [budget], mode="common", measurements=measurements).tiers
    assert tier.needs <= budget
    assert sum(level != FROZEN for level in tier.levels) > 1


def test_of_rivals_the_plan_that_learns_most_is_taken(wide: Task, needed: Any) -> None:
    """Gains that promise everything of the first bias lead astray; a fine-tuning puts it right."""
    torch.manual_seed(0)
    x = torch.randn(360, *wide.contract.x_shape)
    samples = (x.numpy(), (x.flatten(1)[:, :24].reshape(-1, 3, 8).sum(2)).argmax(1).numpy())
    evidence = evidence_of(wide, samples=samples, processes=1)
    gains = np.zeros((3, len(LEVELS)))
    gains[0, BIAS:] = 1.0
    misled = Scores(gains, "accuracy")
    rival = select(evidence, "last-layers")
    budget = (needed[1] + needed[2]) // 2
    (alone,) = plan_tiers(evidence, misled, [budget]).tiers
    (beside,) = plan_tiers(evidence, dataclasses.replace(misled, rivals=(rival,)), [budget]).tiers
    assert alone.levels == (BIAS, FROZEN, FROZEN)
    assert beside.levels == evidence.space.last(2)
    assert beside.gain == misled.of(beside.levels)


def test_last_layers_within_a_larger_plan_with_gaps_reach_its_first_layer(wide: Task, needed: Any) -> None:
    evidence = evidence_of(wide, samples=few_samples(), processes=1)
    top = (WHOLE, FROZEN, WHOLE)
    search = Search(evidence, select(evidence, "last-layers"), Measurements(evidence), top, shrink=False)
    assert search.settle(2 * needed[2], (FROZEN, FROZEN, WHOLE)).levels == top


def test_coverage_counts_the_tiers_that_train_a_layer(nested: Any) -> None:
    for i, count in enumerate(nested.coverage()):
        assert count == sum(nested.space.shares(tier.plan.subset)[i] > 0 for tier in nested.tiers)
    assert nested.coverage()[-1] == 3


def test_a_common_plan_is_that_of_the_smallest_budget_for_all(wide: Task, nested: Any) -> None:
    evidence = evidence_of(wide, samples=few_samples(), processes=1)
    budgets = [tier.budget for tier in nested.tiers]
    common = plan_tiers(evidence, nested.scores, budgets, mode="common")
    assert [tier.plan for tier in common.tiers] == [common.tiers[0].plan] * 3
    assert [tier.budget for tier in common.tiers] == budgets
    assert measure(build(wide, common.tiers[0].plan, ("train_step",))).total_bytes <= budgets[0] * 1.05


@pytest.mark.full
def test_with_shrink_a_smaller_micro_batch_trains_more() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 24, 3, padding=1), nn.ReLU(), nn.Conv2d(24, 8, 3, padding=1), nn.Flatten(), nn.Linear(8 * 576, 3)
    )
    task = task_of(model, (2, 24, 24), batch=16)
    evidence = evidence_of(task, processes=1)
    scores = select(evidence, "magnitude")
    whole = plan_tiers(evidence, scores, [10**9])
    budget = int(whole.everything * 0.85)
    plain, shrunk = (plan_tiers(evidence, scores, [budget], shrink=shrink).tiers[0] for shrink in (False, True))
    assert shrunk.plan.micro_batch < plain.plan.micro_batch
    assert shrunk.gain > plain.gain
    assert shrunk.needs <= budget


def test_plans_are_files_that_can_be_read_again(nested: Any, tmp_path: Path) -> None:
    save(nested, tmp_path)
    budgets = [tier.budget for tier in nested.tiers]
    assert load(tmp_path, nested.space.task.layout, budgets) == [tier.plan for tier in nested.tiers]
    with pytest.raises(ExportError, match="plan for all budgets"):
        load(tmp_path, nested.space.task.layout, [1])
    with pytest.raises(ExportError, match="ftte plan --out"):
        load(tmp_path / "none", nested.space.task.layout, budgets)


def test_a_selector_or_data_that_do_not_fit_are_refused_with_what_fits(wide: Task) -> None:
    evidence = evidence_of(wide, processes=1)
    with pytest.raises(ExportError, match="contribution, fisher, magnitude, sensitivity, last-layers, random"):
        select(evidence, "crystal-ball")
    x, y = few_samples()
    with pytest.raises(ExportError, match=r"x is float32 of shape \(60, 72\); .* float32 of shape \(n, 2, 6, 6\)"):
        evidence_of(wide, samples=(x.reshape(60, 72), y))


def test_too_small_a_budget_is_refused_with_the_smallest_that_works() -> None:
    torch.manual_seed(0)
    task = task_of(nn.Sequential(nn.Flatten(), nn.Linear(72, 3)), batch=2)
    lines: list[str] = []
    with pytest.raises(BudgetError) as refused:
        plan_for(task, 1000, progress=lines.append)
    assert "set at least that" in str(refused.value)
    assert lines[-1] == "measuring memory: 1 of 1"
    assert plan_for(task, refused.value.smallest_bytes).micro_batch <= 2


def test_a_budget_below_the_last_layers_lowers_the_micro_batch() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 16, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 576, 3))
    task = task_of(model, (2, 24, 24), batch=32)
    space = Space(task)
    head = space.subset(space.last(1))
    full = measure(build(task, Plan(head, 32), ("train_step",))).total_bytes
    plan = plan_for(task, full // 2)
    # Whether a bias fits beside it is within the noise of a measurement.
    assert set(plan.subset) >= set(head)
    assert plan.micro_batch < 32
    assert measure(build(task, plan, ("train_step",))).total_bytes <= full // 2
