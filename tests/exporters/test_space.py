"""The space of plans: every layer in order, levels inside each other, channels by one order."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from exporters import Plan, Task, load_task
from exporters.program.step import Step
from exporters.space import BIAS, FROZEN, WHOLE, Space
from exporters.zoo import TASKS
from mobile_sdk.layout import Slice
from tests.exporters.export_tasks import task_of


class _Crossed(nn.Module):
    """Layers are made in another order than they run, one is not used, one weight belongs to no module that runs."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(8, 3)
        self.norm = nn.LayerNorm(8)
        self.first = nn.Linear(72, 8)
        self.unused = nn.Linear(9, 9)
        self.called = nn.Module()
        self.called.register_parameter("factor", nn.Parameter(torch.ones(2, 8)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        called: Any = self.called
        return self.last(self.norm(self.first(x.flatten(1))) * called.factor.sum(0))


@pytest.fixture(scope="module")
def convolutional() -> Task:
    torch.manual_seed(3)
    model = nn.Sequential(
        nn.Conv2d(2, 12, 3, padding=1, bias=False),
        nn.BatchNorm2d(12).eval(),
        nn.ReLU(),
        nn.Conv2d(12, 12, 3, padding=1, groups=12),
        nn.ReLU(),
        nn.Conv2d(12, 10, 1),
        nn.Flatten(),
        nn.Linear(360, 3),
    )
    return task_of(model)


def test_layers_are_in_the_order_in_which_they_run() -> None:
    layers = {layer.name: layer for layer in Space(task_of(_Crossed())).layers}
    assert list(layers) == ["", "first", "last"]
    assert layers[""].weights == ("called.factor",)


def test_the_bias_of_a_normalisation_belongs_to_the_layer_before_it(convolutional: Task) -> None:
    first = Space(convolutional).layers[0]
    assert first.weights == ("0.weight",)
    assert first.biases == ("1.bias",)
    assert first.levels == (FROZEN, BIAS, 2, WHOLE)  # two input channels: one or both


def test_a_depthwise_convolution_is_sliced_by_the_channels_that_it_filters(convolutional: Task) -> None:
    layer = Space(convolutional).layers[1]
    assert layer.trained(3)["3.weight"] == Slice(0, tuple(sorted(layer.order[:3])))


def test_channels_are_taken_by_weight_norm(convolutional: Task) -> None:
    weight = convolutional.model.get_parameter("5.weight").detach().numpy()
    norms = np.linalg.norm(weight[:, :, 0, 0], axis=0)
    assert list(Space(convolutional).layers[2].order) == sorted(range(12), key=lambda i: -norms[i])


@pytest.mark.parametrize("name", TASKS)
def test_every_parameter_of_the_zoo_has_a_place_but_scales_of_normalisation(name: str) -> None:
    task = load_task(TASKS[name])
    space = Space(task)
    named = [n for layer in space.layers for n in (*layer.weights, *layer.biases)]
    assert len(named) == len(set(named))
    missing = set(task.parameter_names()) - set(named)
    owners = {path: module for path, module in task.model.named_modules()}
    for n in missing:
        assert n.endswith(".weight")
        assert "Norm" in type(owners[n.rpartition(".")[0]]).__name__


@given(data=st.data())
@settings(max_examples=50, deadline=None)
def test_a_lower_level_lies_inside_a_higher_one(convolutional: Task, data: Any) -> None:
    space = Space(convolutional)
    high = tuple(data.draw(st.sampled_from(layer.levels)) for layer in space.layers)
    low = tuple(
        data.draw(st.sampled_from([level for level in layer.levels if level <= most]))
        for layer, most in zip(space.layers, high, strict=True)
    )
    inside, outside = (set(space.subset(levels).positions().tolist()) for levels in (low, high))
    assert inside <= outside
    assert space.level_of(space.subset(high)) == high
    assert all(a <= b for a, b in zip(space.shares(space.subset(low)), space.shares(space.subset(high)), strict=True))


@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_every_plan_survives_json_and_has_gradients_for_its_ranges_alone(convolutional: Task, data: Any) -> None:
    space = Space(convolutional)
    levels = tuple(data.draw(st.sampled_from(layer.levels)) for layer in space.layers)
    if not any(levels):
        return
    plan = space.plan(levels, 4)
    assert Plan.from_json(convolutional.layout, plan.to_json()) == plan
    step = Step(convolutional, plan)
    state = dict(convolutional.model.state_dict())
    x, y = convolutional.batch(4)
    gradients = step.train_step(x, y, torch.ones(4), *[state[n] for n in step.order])[2:]
    assert [tuple(g.shape) for g in gradients] == [plan.subset.shape(n) for n in plan.subset]


def test_training_flags_of_the_model_are_left_as_they_were(convolutional: Task) -> None:
    convolutional.model.get_parameter("0.weight").requires_grad_(False)
    Space(convolutional)
    assert not convolutional.model.get_parameter("0.weight").requires_grad
    convolutional.model.get_parameter("0.weight").requires_grad_(True)
