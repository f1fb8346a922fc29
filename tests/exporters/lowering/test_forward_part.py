"""Layers below the first trained one need one layer's memory, not that of all of them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from exporters import Plan, Task, export, load_task
from exporters.emit.partition import Delegated, partition
from exporters.emit.simplify import simplify
from exporters.emit.xnnpack import describe, serialise
from exporters.lowering.lower import prepare
from exporters.lowering.marks import APART, mark
from exporters.lowering.passes.forward_part import ForwardPart, find
from exporters.memory.measure import measure
from exporters.plan import frozen_in_all
from exporters.program.build import build, lowered
from exporters.program.step import Step
from exporters.program.tracing import trace
from exporters.program.verify import TOLERANCE
from exporters.zoo import TASKS
from mobile_sdk.layout import Subset
from tests.exporters.export_tasks import error_of, task_of

CONVOLUTIONAL = [
    "digits",
    "lenet",
    "group_norm",
    "cifar",
    "mobilenet_v2",
    "mobilenet_v2_folded",
    "mobilenet_v3",
    "resnet20",
    "ds_cnn",
    "motion",
]
QUICK = ["lenet", "motion"]


def last_layer(task: Task) -> Plan:
    owner = task.parameter_names()[-1].rpartition(".")[0]
    names = [n for n in task.parameter_names() if n.rpartition(".")[0] == owner]
    return Plan(Subset.whole(task.layout, names), task.micro_batch)


def body(norm: nn.Module) -> Task:
    torch.manual_seed(0)
    layers = [nn.Conv2d(2, 4, 3, padding=1), norm, nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Conv2d(4, 4, 3)]
    return task_of(nn.Sequential(*layers, nn.Flatten(), nn.Linear(16, 3)), (2, 8, 8), batch=8)


def forward_part(task: Task, plan: Plan, asked: int | None) -> ForwardPart | None:
    step = Step(task, plan)
    state = task.model.state_dict()

    def inputs(samples: int) -> list[torch.Tensor]:
        x, y = task.batch(samples)
        return [x, y, torch.ones(samples), *[state[n].detach() for n in step.order]]

    def traced(samples: int) -> torch.fx.GraphModule:
        return prepare(trace(step.train_step, task.model, inputs(samples)))

    live = range(1, 3 + len(step.trained))
    return find(traced(plan.micro_batch), inputs(plan.micro_batch), live, asked, traced)


def test_frozen_layers_run_a_few_samples_at_a_time() -> None:
    task = body(nn.GroupNorm(2, 4))
    part = forward_part(task, last_layer(task), 3)
    assert part is not None
    assert part.samples == 2  # the largest divisor of 8 that was asked for
    assert sum(node.target is torch.ops.aten.convolution.default for node in part.needed) == 2


def test_what_is_trained_stays_whole() -> None:
    task = body(nn.GroupNorm(2, 4))
    assert forward_part(task, Plan.everything(task), 2) is None


def test_layers_that_mix_samples_stay_whole() -> None:
    """Batch normalisation in training mode: a tile's statistics are not the batch's."""
    task = body(nn.BatchNorm2d(4))
    assert forward_part(task, last_layer(task), 2) is None
    task.model.get_submodule("1").eval()
    assert forward_part(task, last_layer(task), 2) is not None


@pytest.mark.parametrize("samples", [1, 4])
def test_tiles_give_the_gradients_of_the_whole_batch(samples: Any) -> None:
    task = body(nn.GroupNorm(2, 4))
    plan = Plan(last_layer(task).subset, 8, forward_batch=samples)
    assert error_of(export(task, plan=plan)) < TOLERANCE


@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.full) for n in CONVOLUTIONAL])
def test_the_last_layer_alone_needs_a_sixth_of_the_memory(name: str) -> None:
    task = load_task(TASKS[name])
    plan = last_layer(task)
    plan = plan.bake(frozen_in_all(task, [plan]))
    alone, everything = (measure(build(task, p, ("train_step",))).total_bytes for p in (plan, Plan.everything(task)))
    assert alone <= everything / 6


@pytest.mark.parametrize("norm", [nn.GroupNorm(2, 4), nn.BatchNorm2d(4)])
def test_all_tiles_are_calls_of_one_delegate(norm: Any) -> None:
    """What they make of weights alone is made once, before them."""
    task = body(norm.eval())
    plan = Plan(last_layer(task).subset, 8, forward_batch=2)
    step = Step(task, plan)
    state = task.model.state_dict()
    x, y = task.batch(8)
    inputs = [x, y, torch.ones(8), *[state[n].detach() for n in step.order]]
    graph = lowered(step, "train_step", trace(step.train_step, task.model, inputs))
    simplify(graph)
    regions = [part for part in partition(graph.graph) if isinstance(part, Delegated)]
    tiles = [region for region in regions if any(mark(node, APART) for node in region.inputs)]
    assert len(tiles) == 4
    assert [tile.again for tile in tiles] == [False, True, True, True]
    contents = {serialise(describe(tile.nodes, tile.inputs, tile.outputs))[0] for tile in tiles}
    assert len(contents) == 1
