"""What is frozen in every plan of a run may be inside the program, as the delegate's own convolutions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from exporters import ExportError, Plan, Task, export
from exporters.lowering.lower import lower, prepare
from exporters.plan import frozen_in_all
from exporters.program.step import Step
from exporters.program.tracing import trace
from exporters.program.verify import TOLERANCE
from mobile_sdk.engines import load_engine
from mobile_sdk.layout import Subset
from mobile_sdk.manifest import Manifest
from tests.exporters.export_tasks import error_of, task_of


def body() -> nn.Sequential:
    """Plain, depthwise and strided convolutions with batch normalisation, and a head."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 6, 3, padding=1, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Conv2d(6, 6, 3, 2, 1, groups=6),
        nn.BatchNorm2d(6),
        nn.ReLU6(),
        nn.Conv2d(6, 8, 1),
        nn.Flatten(),
        nn.Linear(72, 3),
    )
    for norm in (model[1], model[4]):
        nn.init.uniform_(norm.get_parameter("weight"), 0.5, 1.5)
        nn.init.uniform_(norm.get_buffer("running_mean"), -0.5, 0.5)
        nn.init.uniform_(norm.get_buffer("running_var"), 0.5, 1.5)
        norm.eval()
    return model


def head(task: Task, *names: str) -> Plan:
    return Plan(Subset.whole(task.layout, names), task.micro_batch)


def operators(task: Task, plan: Plan) -> list[str]:
    """What a training step of ``plan`` is lowered to."""
    step = Step(task, plan)
    state = task.model.state_dict()
    x, y = task.batch(plan.micro_batch)
    inputs = [x, y, torch.ones(plan.micro_batch), *[state[n].detach() for n in step.order]]
    graph = lower(prepare(trace(step.train_step, task.model, inputs)), inputs, plan.lowering)
    return [str(node.target) for node in graph.graph.nodes if node.op == "call_function"]


def test_a_baked_program_is_right_and_takes_no_baked_weight() -> None:
    task = task_of(body())
    plan = head(task, "8.weight", "8.bias")
    plan = plan.bake(frozen_in_all(task, [plan]))
    program = export(task, plan=plan)
    assert error_of(program) < TOLERANCE
    assert Manifest.from_bytes(program.manifest.to_bytes()).baked == plan.baked == program.plan.baked
    for method in program.manifest.methods.values():
        assert {spec.name for spec in method.inputs if spec.role == "weight"} == {"8.weight", "8.bias"}


def test_baked_layers_are_one_convolution_each_and_their_normalisation_nothing() -> None:
    task = task_of(body())
    plan = head(task, "8.weight", "8.bias")
    baked = operators(task, plan.bake(frozen_in_all(task, [plan])))
    assert baked.count("ftte.static_convolution.default") == 3
    assert not any("rsqrt" in name or "pad" in name for name in baked)
    assert len(baked) < len(operators(task, plan)) / 2


def test_the_interpreter_convolves_with_baked_weights_too(tmp_path: Path) -> None:
    task = task_of(body())
    plan = head(task, "6.weight", "8.weight")
    program = export(task, plan=plan.bake(frozen_in_all(task, [plan])))
    program.save(tmp_path)
    weights = task.layout.views(program.weights)
    batch = task.example_x.numpy(), task.example_y.numpy(), np.ones(4, np.float32)
    native, interpreted = (
        load_engine(tmp_path, engine=kind).train_step(*batch, weights)[2] for kind in ("native", "interpreted")
    )
    for name, gradient in native.items():
        np.testing.assert_allclose(interpreted[name], gradient, rtol=1e-4, atol=1e-5)


def test_gradients_pass_through_baked_layers() -> None:
    task = task_of(body())
    plan = head(task, "0.weight", "8.bias")
    plan = plan.bake(n for n in frozen_in_all(task, [plan]) if not n.startswith("1."))
    assert error_of(export(task, plan=plan)) < TOLERANCE


def test_one_dimensional_convolutions_are_baked_too() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv1d(2, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(24, 3))
    task = task_of(model, (2, 6))
    plan = head(task, "3.weight").bake(["0.weight", "0.bias"])
    assert "ftte.static_convolution.default" in operators(task, plan)
    assert error_of(export(task, plan=plan)) < TOLERANCE


def test_only_what_no_plan_trains_is_frozen_in_all() -> None:
    task = task_of(body())
    plans = [head(task, "8.weight"), head(task, "6.weight", "8.weight")]
    assert frozen_in_all(task, plans) == sorted(
        [n for n in task.layout.views(task.initial_weights()) if n[0] in "0134"] + ["6.bias"]
    )


def test_a_plan_cannot_bake_what_it_trains_or_what_does_not_exist() -> None:
    task = task_of(body())
    with pytest.raises(ExportError, match=r"trains '8\.bias', so it cannot be baked"):
        head(task, "8.bias").bake(["8.bias"])
    with pytest.raises(ExportError, match="bakes 'nothing'"):
        head(task, "8.bias").bake(["nothing"])


def test_a_plan_with_all_its_fields_survives_json() -> None:
    task = task_of(body())
    plan = Plan(Subset.whole(task.layout, ["8.bias"]), 4, ("0.weight",), {"3": "shifted"}, 2)
    assert Plan.from_json(task.layout, plan.to_json()) == plan
    assert hash(plan) == hash(Plan.from_json(task.layout, plan.to_json()))
    with pytest.raises(ExportError, match="cannot be lowered as 'quickly'"):
        Plan(plan.subset, 4, lowering={"3": "quickly"})
