"""Dropout is exact when it is off, and drawn from the assignment's seed when it is on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from exporters import ExportError, Plan, Program, Task, export
from exporters.program.step import Step
from mobile_sdk import load_engine
from mobile_sdk.data import ArrayDataset
from mobile_sdk.engines.dropout import draw, generator
from mobile_sdk.layout import Subset
from mobile_sdk.manifest import Manifest, TensorSpec
from mobile_sdk.training.settings import TrainingSettings
from mobile_sdk.training.train import train
from tests.exporters.export_tasks import error_of, task_of


def model(p: float = 0.4) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 8, 3, padding=1), nn.Dropout2d(p), nn.ReLU(), nn.Flatten(), nn.Dropout(p), nn.Linear(288, 3)
    )


@pytest.fixture(scope="module")
def task() -> Task:
    return task_of(model())


@pytest.fixture(scope="module")
def program(task: Task) -> Program:
    return export(task)


def gradients(folder: Path, program: Program, task: Task, seed: int | None, kind: str = "native") -> Any:
    program.save(folder)
    engine = load_engine(folder, engine=kind)
    x, y = task.example_x.numpy(), task.example_y.numpy()
    weights = task.layout.views(program.weights)
    dropout = None if seed is None else generator(seed)
    result = engine.train_step(x, y, np.ones(len(x), np.float32), weights, dropout)[2]
    result = {name: gradient.copy() for name, gradient in result.items()}
    engine.close()
    return result


def test_masks_are_inputs_that_the_manifest_declares(program: Program) -> None:
    masks = [s for s in program.manifest.methods["train_step"].inputs if s.role == "dropout"]
    assert [(m.name, m.shape) for m in masks] == [("1", (4, 8, 1, 1)), ("4", (4, 288))]
    assert all(m.keep == pytest.approx(0.6) for m in masks)
    assert all(s.role != "dropout" for s in program.manifest.methods["evaluate"].inputs)
    assert Manifest.from_bytes(program.manifest.to_bytes()) == program.manifest


def test_a_program_with_dropout_is_verified_with_its_masks(program: Program) -> None:
    """Eager autograd in double precision saw the masks that the engine drew."""
    assert 0 < error_of(program) < 1e-5


@pytest.mark.parametrize("kind", ["native", "interpreted"])
def test_without_a_seed_dropout_is_off(program: Program, task: Task, tmp_path: Path, kind: str) -> None:
    off = gradients(tmp_path, program, task, None, kind)
    plain = Task(task.model.eval(), task.loss, task.example_x, task.example_y)
    expected = Step(plain, Plan.everything(plain)).train_step(
        task.example_x, task.example_y, torch.ones(4), *[task.model.state_dict()[n] for n in off]
    )
    task.model.train()
    for actual, wanted in zip(off.values(), expected[1:], strict=True):
        np.testing.assert_allclose(actual, wanted.numpy(), atol=2e-5)


@pytest.mark.parametrize("kind", ["native", "interpreted"])
def test_a_seed_fixes_the_masks_on_every_engine(program: Program, task: Task, tmp_path: Path, kind: str) -> None:
    first = gradients(tmp_path, program, task, 5)
    again, other = gradients(tmp_path, program, task, 5, kind), gradients(tmp_path, program, task, 6, kind)
    for name, gradient in first.items():
        np.testing.assert_allclose(again[name], gradient, atol=1e-5)
        assert not np.allclose(other[name], gradient, atol=1e-3)


def test_local_training_repeats_with_its_seed(program: Program, task: Task, tmp_path: Path) -> None:
    program.save(tmp_path)
    engine = load_engine(tmp_path)
    data = ArrayDataset(task.example_x.numpy(), task.example_y.numpy())
    weights = task.layout.views(program.weights)
    settings = TrainingSettings(epochs=2, batch_size=4, learning_rate=0.1)
    updates = [train(engine, weights, data, settings, seed).update["5.weight"] for seed in (3, 3, 4)]
    assert np.array_equal(updates[0], updates[1])
    assert not np.array_equal(updates[0], updates[2])
    engine.close()


def test_dropout_below_the_first_trained_layer_is_drawn_too(task: Task, tmp_path: Path) -> None:
    """Layers that only run forward may run a few samples at a time; their masks are the whole batch's."""
    plan = Plan(Subset.whole(task.layout, ["5.weight", "5.bias"]), 4, forward_batch=1)
    program = export(task, plan=plan)
    assert [s.name for s in program.manifest.methods["train_step"].inputs if s.role == "dropout"] == ["1", "4"]
    assert 0 < error_of(program) < 1e-5


def test_a_mask_keeps_the_mean() -> None:
    spec = TensorSpec("dropout", "", (200, 500), "float32", 0.25)
    mask = np.empty(spec.shape, np.float32)
    draw(spec, generator(1), mask)
    assert set(np.unique(mask)) == {0.0, 4.0}
    assert mask.mean() == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize("idle", [model(0.0), model().eval()], ids=["p is zero", "eval mode"])
def test_dropout_that_does_nothing_asks_for_no_mask(idle: Any) -> None:
    task = task_of(idle)
    assert Step(task, Plan.everything(task)).draws == []


class Attention(nn.Module):
    def __init__(self, p: float) -> None:
        super().__init__()
        self.qkv, self.p = nn.Linear(6, 12), p

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(x).chunk(3, -1)
        return F.scaled_dot_product_attention(q, k, v, dropout_p=self.p)


def test_dropout_inside_an_operator_is_drawn_too() -> None:
    attention = nn.Sequential(nn.Flatten(2), nn.Linear(36, 6), Attention(0.1), nn.Flatten(), nn.Linear(8, 3))
    alpha = nn.Sequential(nn.Flatten(), nn.AlphaDropout(0.2), nn.Linear(72, 3))
    for net, module in ((attention, "2"), (alpha, "1")):
        program = export(task_of(net))
        drawn = [s for s in program.manifest.methods["train_step"].inputs if s.role == "dropout"]
        assert [s.name for s in drawn] == [module]
        assert 0 < (program.gradient_error or 0) < 1e-5


class Noisy(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.randn_like(x) * torch.rand(1) + F.gumbel_softmax(x)


def test_other_draws_are_inputs_with_their_distribution() -> None:
    program = export(task_of(nn.Sequential(nn.Flatten(), nn.Linear(72, 3), Noisy())))
    drawn = [(s.role, s.name, s.shape) for s in program.manifest.methods["train_step"].inputs if s.name == "2"]
    assert drawn == [("normal", "2", (4, 3)), ("uniform", "2", (1,)), ("exponential", "2", (4, 3))]
    assert 0 < (program.gradient_error or 0) < 1e-5


def test_numbers_that_no_device_can_repeat_are_refused() -> None:
    class Counted(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * torch.randint(0, 2, x.shape)

    with pytest.raises(ExportError, match=r"draws from randint, which no device repeats; use dropout"):
        task_of(nn.Sequential(nn.Flatten(), nn.Linear(72, 3), Counted()))
