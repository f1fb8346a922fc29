"""Each layer gets the fastest lowering that the budget allows."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import nn

from exporters import BudgetError, Plan, Task
from exporters.memory.measure import measure
from exporters.memory.predict import predict
from exporters.program.build import build, calls, lowered
from exporters.program.step import Step
from exporters.program.verify import TOLERANCE, relative_errors
from exporters.search.baking import bake
from exporters.search.lowering_choice import choose
from mobile_sdk.layout import Subset
from tests.exporters.export_tasks import task_of


@pytest.fixture(scope="module")
def wide() -> Task:
    """One sample's columns of the second convolution are 2.4 MB, of the first 74 KB."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(2, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1), nn.ReLU()]
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 3))
    return task_of(model, (2, 46, 46), batch=2)


def test_what_fits_is_left_as_it_is(wide: Task) -> None:
    plan = Plan.everything(wide)
    assert choose(wide, plan, 1 << 40) == plan


def test_a_layer_whose_columns_do_not_fit_is_shifted(wide: Task) -> None:
    plan = Plan.everything(wide)
    chosen = choose(wide, plan, predict(wide, plan).total_bytes - 1)
    assert dict(chosen.lowering) == {"2": "shifted"}
    before, after = (measure(build(wide, p, ("train_step",))).total_bytes for p in (plan, chosen))
    assert after < 0.85 * before


def test_what_no_lowering_fits_is_refused_with_what_is_needed(wide: Task) -> None:
    with pytest.raises(BudgetError, match="the leanest takes") as refused:
        choose(wide, Plan.everything(wide), 1000)
    assert refused.value.smallest_bytes > 1000


def test_a_run_bakes_what_no_plan_trains_where_every_plan_gains(wide: Task) -> None:
    """Memory as given: the first plan gains by it, the second only in the second case."""
    heads = [Plan(Subset.whole(wide.layout, names), 2) for names in (["6.weight"], ["6.weight", "6.bias"])]
    costs = {(1, False): 10, (1, True): 5, (2, False): 10, (2, True): 11}

    def memory(task: Task, plan: Plan) -> int:
        return costs[len(plan.subset), bool(plan.baked)]

    assert bake(wide, heads, memory=memory) == heads
    costs[2, True] = 9
    assert {plan.baked for plan in bake(wide, heads, memory=memory)} == {("0.bias", "0.weight", "2.bias", "2.weight")}
    everything = [heads[0], Plan.everything(wide)]
    assert bake(wide, everything, memory=memory) == everything


@pytest.mark.parametrize("choice", ["columns", "tiled", "shifted"])
@pytest.mark.parametrize(("channels", "size", "batch"), [(4, 12, 4), (16, 48, 7)], ids=["small", "in tiles, by rows"])
def test_every_choice_gives_the_same_gradients(choice: str, channels: Any, size: Any, batch: Any) -> None:
    torch.manual_seed(0)
    first, second = nn.Conv2d(8, channels, 3, 2, 1), nn.Conv2d(channels, 5, (3, 2), dilation=2)
    model = nn.Sequential(first, nn.ReLU(), second, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(20, 3))
    task = task_of(model, (8, size, size), batch=batch)
    step = Step(task, dataclasses.replace(Plan.everything(task), lowering=dict.fromkeys(["0", "2"], choice)))
    _, inputs = calls(step)["train_step"]
    expected = step.in_float64().train_step(*[t.double() if t.is_floating_point() else t for t in inputs])
    actual = lowered(step, "train_step")(*inputs)
    names = ["loss", *task.metrics, *step.trained]
    pair = ({n: t.numpy() for n, t in zip(names, r, strict=True)} for r in (actual, expected))
    assert max(relative_errors(*pair).values()) < TOLERANCE
