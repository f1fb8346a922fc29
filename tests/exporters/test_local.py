"""What a task keeps on devices is trained by every plan and is part of no subset."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from exporters import Plan, Task
from exporters.errors import ExportError, TaskError
from exporters.plan import bakeable
from exporters.program.step import Step
from exporters.space import Space
from mobile_sdk.layout import Subset


def make(local: list[str]) -> Task:
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    loss = nn.CrossEntropyLoss(reduction="none")
    return Task(model, loss, torch.randn(4, 4), torch.zeros(4, dtype=torch.int64), local=local)


def test_local_names_parameters_and_modules() -> None:
    assert make(["2"]).local == ("2.weight", "2.bias")
    assert make(["2.bias", "0.bias"]).local == ("0.bias", "2.bias")
    assert make([]).local == ()
    with pytest.raises(TaskError, match="'3', which is no parameter"):
        make(["3"])
    with pytest.raises(TaskError, match="nothing to learn together"):
        make(["0", "2"])


def test_every_plan_trains_what_is_local_and_none_may_train_it_alone() -> None:
    task = make(["2"])
    step = Step(task, Plan(Subset.whole(task.layout, ["0.weight"]), 4))
    assert set(step.plan.subset) == {"0.weight", "2.weight", "2.bias"}
    assert {name for layer in Space(task).layers for name in (*layer.weights, *layer.biases)} == {"0.weight", "0.bias"}
    assert not bakeable(task) & set(task.local)
    with pytest.raises(ExportError, match="only what the task keeps"):
        Step(task, Plan(Subset.whole(task.layout, ["2.weight"]), 4))
