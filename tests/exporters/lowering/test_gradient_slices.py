"""Training a slice of a weight computes the gradient of the slice, and keeps what it needs of the activations."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import fx, nn

from exporters import Plan, Task, export
from exporters.memory.measure import measure
from exporters.program.build import build, calls, lowered
from exporters.program.step import Step
from exporters.program.verify import TOLERANCE, relative_errors
from mobile_sdk.layout import Slice, Subset
from tests.exporters.export_tasks import error_of, task_of

_aten = torch.ops.aten


def net(channels: int = 6, size: int = 6, batch: int = 4) -> Task:
    torch.manual_seed(0)
    layers = [
        nn.Conv2d(4, channels, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(channels, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1, groups=8),
        nn.Flatten(),
        nn.Linear(8 * size * size, 3),
    ]
    return task_of(nn.Sequential(*layers), (4, size, size), batch=batch)


def plan(task: Task, **parts: Slice | None) -> Plan:
    choice = {name.replace("_", ".").replace("layer", ""): part for name, part in parts.items()}
    return Plan(Subset(task.layout, choice), len(task.example_x))


SCATTERED = tuple(range(0, 288, 3))


@pytest.mark.parametrize(
    "parts",
    [
        {"layer2_weight": Slice(1, (0, 3, 4))},
        {"layer2_weight": Slice(0, (1, 2, 7)), "layer2_bias": None},
        {"layer0_weight": Slice(1, (1, 3)), "layer2_weight": Slice(1, (0, 5))},
        {"layer4_weight": Slice(0, (2, 3, 6))},
        {"layer6_weight": Slice(1, SCATTERED)},
        {"layer6_weight": Slice(0, (0, 2))},
        {"layer2_bias": Slice(0, (1, 5)), "layer4_bias": None},
        {"layer2_weight": Slice(2, (0, 2))},
    ],
    ids=["inputs", "outputs", "two layers", "depthwise", "linear inputs", "linear outputs", "biases", "kernel rows"],
)
def test_a_slice_has_its_part_of_the_gradient(parts: Any) -> None:
    task = net()
    assert max(errors(task, plan(task, **parts)).values()) < TOLERANCE


def errors(task: Task, chosen: Plan) -> dict[str, float]:
    """Errors of the lowered step's gradients, run in torch itself, against float64."""
    step = Step(task, chosen)
    _, inputs = calls(step)["train_step"]
    doubles = [t.double() if t.is_floating_point() else t for t in inputs]
    expected = step.in_float64().train_step(*doubles)
    actual = lowered(step, "train_step")(*inputs)
    names = ["loss", *task.metrics, *step.trained]
    pair = ({n: t.numpy() for n, t in zip(names, r, strict=True)} for r in (actual, expected))
    return relative_errors(*pair)


def test_many_scattered_channels_are_chosen_by_a_product() -> None:
    task = net(channels=40)
    parts = {"layer2_weight": Slice(1, tuple(range(0, 40, 2)))}
    assert error_of(export(task, plan=plan(task, **parts))) < TOLERANCE


def products(task: Task, chosen: Plan) -> list[tuple[int, ...]]:
    """Shapes of the products' results."""
    graph = lowered(Step(task, chosen), "train_step")
    return [tuple(n.meta["val"].shape) for n in graph.graph.nodes if n.target is _aten.bmm.default]


def test_only_the_chosen_channels_are_multiplied() -> None:
    task = net(channels=16)
    whole, part = plan(task, layer2_weight=None), plan(task, layer2_weight=Slice(1, (2, 3, 4, 5)))
    assert (1, 8, 9 * 16) in products(task, whole)
    assert (1, 8, 9 * 4) in products(task, part)
    assert (1, 8, 9 * 16) not in products(task, part)


def kept(task: Task, chosen: Plan) -> int:
    """Bytes of the arena, through which activations reach the backward pass."""
    return build(task, chosen, ("train_step",)).manifest.memory.planned_bytes


def test_activations_of_other_channels_are_not_kept() -> None:
    task = net(channels=16, size=16)
    whole, part = plan(task, layer2_weight=None), plan(task, layer2_weight=Slice(1, (2, 3, 4, 5)))
    activations = 4 * 4 * 16 * 16 * 12
    assert kept(task, whole) - kept(task, part) >= activations


def test_a_bias_keeps_no_activations_of_its_layer() -> None:
    task = net(channels=16, size=16)
    weight, bias = plan(task, layer2_weight=None), plan(task, layer2_bias=None)
    assert kept(task, weight) - kept(task, bias) >= 4 * 4 * 16 * 16 * 16


def test_a_slice_takes_less_memory_than_the_whole() -> None:
    task = net(channels=32, size=16, batch=16)
    whole, part = (
        measure(build(task, plan(task, layer2_weight=p), ("train_step",))).total_bytes
        for p in (None, Slice(1, tuple(range(8))))
    )
    assert part < 0.9 * whole


def test_a_choice_that_is_not_of_a_gradient_stays() -> None:
    class Chosen(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.index_select(1, torch.tensor([3, 0, 2]))

    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 4, 1), Chosen(), nn.Flatten(), nn.Linear(108, 3))
    task = task_of(model)
    head = Plan(Subset.whole(task.layout, ["3.weight"]), 4)
    graph = lowered(Step(task, head), "train_step")
    assert isinstance(graph, fx.GraphModule)
    assert error_of(export(task, plan=head)) < TOLERANCE
