"""A program's gradients, metrics and predictions are those of the model, and it survives a folder."""

from __future__ import annotations

import dataclasses
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from exporters import BudgetError, ExportError, Plan, Program, Task, export
from exporters.zoo import digits, digits_data
from exporters.zoo.digits import task as digits_task
from mobile_sdk import load_engine, safetensors
from mobile_sdk.errors import ProgramError
from mobile_sdk.layout import Subset
from mobile_sdk.payload import pack
from tests.exporters.export_tasks import correct, error_of, per_sample, tiny_task


def eager(task: Task, weights: dict[str, Any], x: Any, y: Any, sample_weight: Any) -> Any:
    """Loss, metric and gradients of every parameter by autograd in float64, without the exporter's own step."""
    import copy

    model = copy.deepcopy(task.model).double()
    model.load_state_dict({n: torch.from_numpy(np.array(w)).double() for n, w in weights.items()})
    output = model(torch.from_numpy(x).double())
    weight = torch.from_numpy(sample_weight).double()
    loss = (per_sample(output, torch.from_numpy(y)) * weight).sum()
    loss.backward()
    hits = float((correct(output, torch.from_numpy(y)) * weight).sum())
    return float(loss.detach()), hits, {n: p.grad.numpy() for n, p in model.named_parameters() if p.grad is not None}


def check(program: Program, task: Task, folder: Path, x: Any, y: Any) -> None:
    """One step with random weights, among them zeros, against :func:`eager`."""
    random = np.random.default_rng(5)
    vector = program.weights + random.normal(0, 0.05, program.weights.shape).astype(np.float32)
    weights = task.layout.views(vector)
    sample_weight = random.uniform(0, 2, len(x)).astype(np.float32)
    sample_weight[1] = 0
    program.save(folder)
    engine = load_engine(folder)
    (metric,) = task.metrics
    loss, metrics, gradients = engine.train_step(x, y, sample_weight, weights)
    expected_loss, hits, expected = eager(task, weights, x, y, sample_weight)
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    assert metrics[metric] == pytest.approx(hits, rel=1e-5)
    assert list(gradients) == list(program.plan.subset)
    for name, gradient in gradients.items():
        wanted = expected[name][program.plan.subset.selector(name)]
        np.testing.assert_allclose(gradient, wanted, rtol=0, atol=1e-5 * max(1.0, np.abs(wanted).max()), err_msg=name)
    engine.close()


def test_a_whole_program_gives_the_gradients_of_autograd(digits_program: Program, tmp_path: Path) -> None:
    (x, y), _ = digits_data.load()
    check(digits_program, digits_task, tmp_path, x[100:116], y[100:116])


def test_a_short_batch_is_as_exact_as_a_full_one(digits_program: Program, tmp_path: Path) -> None:
    (x, y), _ = digits_data.load()
    check(digits_program, digits_task, tmp_path, x[:5], y[:5])


def test_a_partial_program_trains_the_last_layers_only(tmp_path: Path) -> None:
    task = tiny_task()
    plan = Plan(Subset.whole(task.layout, ["3.weight", "3.bias"]), 4)
    program = export(task, plan=plan)
    check(program, task, tmp_path, task.example_x.numpy(), task.example_y.numpy())


def test_a_sliced_program_gives_the_gradients_of_its_slices(
    tiny: Task, sliced_program: Program, tmp_path: Path
) -> None:
    assert sliced_program.plan.subset.shape("0.weight") == (2, 2, 3, 3)
    check(sliced_program, tiny, tmp_path, tiny.example_x.numpy(), tiny.example_y.numpy())


def test_evaluation_and_prediction_are_the_models(digits_program: Program, tmp_path: Path) -> None:
    x, y = digits_data.held_out()
    x, y = x[:16], y[:16]
    digits_program.save(tmp_path)
    engine = load_engine(tmp_path)
    weights = digits_task.layout.views(digits_program.weights)
    with torch.no_grad():
        output = digits_task.model(torch.from_numpy(x))
    np.testing.assert_allclose(engine.predict(x, weights), output.numpy(), atol=1e-5)
    loss, metrics = engine.evaluate(x, y, np.ones(16, np.float32), weights)
    assert loss == pytest.approx(float(per_sample(output, torch.from_numpy(y)).sum()), rel=1e-5)
    assert metrics == {"accuracy": float(correct(output, torch.from_numpy(y)).sum())}
    engine.close()


def test_a_program_holds_no_weights(digits_program: Program) -> None:
    packed, _ = pack(digits_program.pte)
    assert len(packed) < digits_task.layout.nbytes / 3
    assert len(packed) < 0.95 * len(zlib.compress(digits_program.pte, 9))
    for name, values in digits_task.layout.views(digits_program.weights).items():
        assert not values.any() or values.tobytes() not in digits_program.pte, name


def test_a_program_reports_what_it_was_verified_with(digits_program: Program) -> None:
    assert 0 < error_of(digits_program) < 1e-5
    assert digits_program.manifest.memory.planned_bytes > 0
    assert digits_program.manifest.memory.measured_bytes > 4 * 3 * digits_task.layout.size


def test_exporting_twice_gives_the_same_program(tiny: Task, tiny_program: Program) -> None:
    again = export(tiny, cached=False)
    assert again.pte == tiny_program.pte
    assert again.manifest.methods == tiny_program.manifest.methods


def test_a_saved_program_is_loaded_as_it_was(tiny_program: Program, tmp_path: Path) -> None:
    tiny_program.save(tmp_path / "new" / "folder")
    loaded = Program.load(tmp_path / "new" / "folder")
    assert loaded.manifest == tiny_program.manifest
    assert loaded.pte == tiny_program.pte
    assert np.array_equal(loaded.weights, tiny_program.weights)
    arrays, _ = safetensors.loads((tmp_path / "new" / "folder" / "weights.safetensors").read_bytes())
    assert list(arrays) == [p.name for p in tiny_program.manifest.layout]


def test_an_altered_program_is_not_loaded(tiny_program: Program, tmp_path: Path) -> None:
    tiny_program.save(tmp_path)
    (tmp_path / "program.pte").write_bytes(tiny_program.pte[:-1])
    with pytest.raises(ProgramError, match=r"program\.pte is not the file"):
        Program.load(tmp_path)


def test_a_missing_program_is_named(tmp_path: Path) -> None:
    with pytest.raises(ProgramError, match=str(tmp_path)):
        Program.load(tmp_path)


def test_a_program_is_made_out_to_a_run(tiny_program: Program) -> None:
    made_out = tiny_program.for_run("spring", 7, "small")
    assert (made_out.manifest.run, made_out.manifest.serial, made_out.manifest.tier) == ("spring", 7, "small")
    assert dataclasses.replace(made_out.manifest, run="", serial=0, tier="") == tiny_program.manifest


def test_a_given_plan_must_fit_the_budget(tiny: Task) -> None:
    plan = Plan.everything(tiny)
    assert export(tiny, budget="1MB", plan=plan).manifest.memory.budget_bytes == 1_000_000
    with pytest.raises(BudgetError, match=r"more than 1\.00 KB"):
        export(tiny, budget="1KB", plan=plan)


def test_a_plan_that_trains_a_buffer_is_refused() -> None:
    task = tiny_task()
    task.model.register_buffer("offset", torch.zeros(3))
    task = Task(task.model, per_sample, task.example_x, task.example_y)
    with pytest.raises(ExportError, match="'offset', which is a buffer"):
        export(task, plan=Plan(Subset.whole(task.layout, ["offset"]), 4))


def test_a_parameter_without_influence_is_left_out_and_refused_in_a_plan() -> None:
    task = tiny_task()
    task.model.register_parameter("idle", torch.nn.Parameter(torch.zeros(3)))
    task = Task(task.model, per_sample, task.example_x, task.example_y)
    assert "idle" not in export(task).manifest.subset
    plan = Plan(Subset.whole(task.layout, [p.name for p in task.layout]), 4)
    with pytest.raises(ExportError, match="'idle', on which the loss does not depend"):
        export(task, plan=plan)


def test_the_digits_task_learns_from_its_program_alone(digits_program: Program, tmp_path: Path) -> None:
    """Trained in the native runtime with the SDK's own loop, the digits reach 96 % of the held-out samples."""
    from mobile_sdk.data import ArrayDataset
    from mobile_sdk.training.settings import TrainingSettings
    from mobile_sdk.training.train import train

    digits_program.save(tmp_path)
    engine = load_engine(tmp_path)
    weights = {n: np.array(w) for n, w in digits.task.layout.views(digits_program.weights).items()}
    settings = TrainingSettings(epochs=8, batch_size=16, learning_rate=0.05, momentum=0.9)
    result = train(engine, weights, ArrayDataset(*digits_data.load()[0]), settings, seed=0)
    trained = {n: w + result.update[n] for n, w in weights.items()}
    x, y = digits_data.held_out()
    hits = sum(
        engine.evaluate(x[i : i + 16], y[i : i + 16], np.ones(len(x[i : i + 16]), np.float32), trained)[1]["accuracy"]
        for i in range(0, len(x), 16)
    )
    assert hits / len(x) >= 0.96
    engine.close()
