"""A task that contradicts itself is refused in one sentence; plans and budgets are read as people write them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from exporters import ExportError, Plan, Task, TaskError, load_task
from mobile_sdk.errors import LayoutError
from mobile_sdk.layout import Slice, Subset
from tests.exporters.export_tasks import correct, per_sample, tiny_task

X, Y = torch.zeros(4, 6), torch.zeros(4, dtype=torch.int64)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            (nn.Linear(6, 3), nn.CrossEntropyLoss(), X, Y),
            r"one value per sample, shape \(4,\), not shape \(\); leave the mean out, as reduct",
        ),
        (
            (nn.Linear(6, 1), lambda o, y: (o - y) ** 2, X, Y.float()),
            r"not shape \(4, 4\): outputs and targets, of the shapes \(4, 1\) and \(4,\), meet each with each; "
            r"use output.reshape\(y.shape\)",
        ),
        ((nn.Linear(6, 3), lambda o, y: o**2, X, Y), r"not shape \(4, 3\); take the mean over all axes but the first"),
        ((lambda: nn.Linear(6, 3), per_sample, X, Y), r"the model is a function, no torch.nn.Module; call it"),
        (("net", per_sample, X, Y), r"the model is a str, no torch.nn.Module$"),
        ((nn.Linear(6, 3), per_sample, X, Y[:3]), "example_x has 4 samples and example_y 3"),
        ((nn.Linear(5, 3), per_sample, X, Y), "the model fails on the example batch: RuntimeError"),
        ((nn.Linear(6, 3), per_sample, X, Y.float()), "the loss fails on the example batch"),
        ((nn.Linear(6, 3), lambda o, y: o.sum(1), X, Y.to(torch.int16)), "example_y has the dtype int16"),
        ((nn.Linear(6, 3).double(), per_sample, X.double(), Y), "float32"),
        ((nn.ReLU(), per_sample, X, Y), "has no parameters"),
        ((nn.Linear(6, 3), per_sample, torch.tensor(1.0), Y), "is no batch"),
        ((nn.Sequential(nn.Linear(6, 3), nn.Flatten(0)), per_sample, X, Y), "one tensor with 4 samples"),
    ],
)
def test_a_bad_task_is_refused(arguments: Any, message: str) -> None:
    with pytest.raises(TaskError, match=message):
        Task(*arguments)


@pytest.mark.parametrize("name", ["held_out", "proxy"])
def test_samples_may_be_given_as_they_are_or_by_a_function(name: str) -> None:
    for given in ((X, Y), [X, Y], lambda: (X, Y)):
        task = Task(nn.Linear(6, 3), per_sample, X, Y, **{name: given})  # type: ignore[arg-type]
        x, y = getattr(task, name)()
        assert (x is X, y is Y) == (True, True)
    with pytest.raises(TaskError, match=rf"^{name} is a dict; it must be samples \(x, y\), or a function that gives"):
        Task(nn.Linear(6, 3), per_sample, X, Y, **{name: {"x": X}})  # type: ignore[arg-type]


def test_an_example_may_be_a_table() -> None:
    """Anything that numpy makes an array of: pandas, say."""

    class Table:
        def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
            return np.asarray(X.numpy(), dtype)

        def __getitem__(self, column: str) -> Any:
            raise KeyError(column)

        def __len__(self) -> int:
            return len(X)

    task = Task(nn.Linear(6, 3), per_sample, Table(), Y)
    assert torch.equal(task.example_x, X)


def test_a_metric_must_be_per_sample() -> None:
    with pytest.raises(TaskError, match="metric 'hits' must give one value per sample"):
        Task(nn.Linear(6, 3), per_sample, X, Y, metrics={"hits": lambda o, y: correct(o, y).sum()})


def test_tied_weights_are_one_range_under_their_first_name() -> None:
    first, second = nn.Linear(6, 6), nn.Linear(6, 6)
    second.weight = first.weight
    model = nn.Sequential(first, second)
    task = Task(model, per_sample, X, Y)
    assert [p.name for p in task.layout] == ["0.weight", "0.bias", "1.bias"]
    assert task.parameter_names() == ["0.weight", "0.bias", "1.bias"]


def test_what_is_frozen_or_unused_is_not_trained_and_said() -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    spare = nn.Module()
    spare.weight = nn.Parameter(torch.ones(2))
    model.add_module("spare", spare)
    model.forward = lambda x: model[2](model[1](model[0](x)))  # type: ignore[method-assign]
    model[0].requires_grad_(False)
    task = Task(model, per_sample, X, Y)
    assert task.parameter_names() == ["2.weight", "2.bias"]
    assert task.notes == (
        "frozen, since requires_grad is False: 0.weight, 0.bias",
        "not trained, since the loss does not depend on them: spare.weight",
    )


def test_a_model_in_which_nothing_learns_is_refused() -> None:
    with pytest.raises(TaskError, match="no parameter of the model can be trained"):
        Task(nn.Linear(6, 3).requires_grad_(False), per_sample, X, Y)


def test_making_a_task_leaves_the_model_as_it_is() -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    task = Task(model, per_sample, X + 5, Y)
    task.initial_weights()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert task.moved == ("1.running_mean", "1.running_var")
    assert task.whole == ("train_step",)


def test_an_example_is_converted_with_a_word() -> None:
    task = Task(nn.Linear(6, 3), per_sample, X.double(), Y.int())
    assert (task.contract.x_dtype, task.contract.y_dtype) == ("float32", "int64")
    assert [note.partition(" is ")[0] for note in task.notes] == ["example_x", "example_y"]


def test_what_is_looked_up_bounds_labels_and_tokens() -> None:
    model = nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(20, 3))
    task = Task(model, per_sample, torch.randint(0, 9, (4, 5)), Y)
    assert {(b.array, b.low, b.high, b.ignored) for b in task.contract.bounds} == {("x", 0, 8, None), ("y", 0, 2, -100)}


def test_several_inputs_and_targets_are_parts_of_the_contract() -> None:
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.head = nn.Embedding(9, 4), nn.Linear(4, 3)

        def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            return self.head((self.table(ids) * mask[..., None]).sum(1))

    x = {"ids": torch.randint(0, 9, (4, 5)), "mask": torch.ones(4, 5)}
    task = Task(Pair(), lambda o, y: per_sample(o, y[0]) * y[1], x, (Y, torch.ones(4)))
    assert [(p.name, p.shape, p.dtype) for p in task.contract.x_parts] == [
        ("ids", (5,), "int64"),
        ("mask", (5,), "float32"),
    ]
    assert [p.name for p in task.contract.y_parts] == ["0", "1"]
    assert task.contract.numpy_dtype("x").names == ("ids", "mask")
    with pytest.raises(TaskError, match="range is that of one array, and x has several"):
        Task(Pair(), lambda o, y: per_sample(o, y[0]) * y[1], x, (Y, torch.ones(4)), range=(0, 8))


def test_an_integer_buffer_is_refused() -> None:
    model = nn.Linear(6, 3)
    model.register_buffer("table", torch.arange(5))
    with pytest.raises(TaskError, match=r"buffer 'table' has the dtype torch\.int64"):
        Task(model, per_sample, X, Y)


def test_running_statistics_are_frozen_weights_and_counters_stay_out() -> None:
    model = nn.Sequential(nn.Linear(6, 3), nn.BatchNorm1d(3).eval())
    task = Task(model, per_sample, X, Y)
    names = ["0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var"]
    assert [p.name for p in task.layout] == names
    assert task.parameter_names() == names[:4]


def test_initial_weights_lie_in_layout_order() -> None:
    task = tiny_task()
    flat = np.concatenate([t.detach().numpy().ravel() for t in task.model.state_dict().values()])
    assert np.array_equal(task.initial_weights(), flat)
    assert task.initial_weights().dtype == np.float32


def test_the_contract_comes_from_the_example() -> None:
    task = Task(nn.Linear(6, 3), per_sample, X, Y, range=(0, 1), labels="abc", normalisation="none")
    assert (task.contract.x_shape, task.contract.y_dtype) == ((6,), "int64")
    assert (task.contract.range, task.contract.labels) == ((0.0, 1.0), ("a", "b", "c"))
    assert task.micro_batch == 4


def test_a_task_is_found_by_module_and_attribute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_tasks.py").write_text(
        "from tests.exporters import export_tasks\n"
        "task = export_tasks.tiny_task()\nmake = export_tasks.tiny_task\nnumber = 3\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert isinstance(load_task("my_tasks:task"), Task)
    assert isinstance(load_task("my_tasks:make"), Task)
    with pytest.raises(TaskError, match="is a int, not a Task"):
        load_task("my_tasks:number")
    with pytest.raises(TaskError, match="has no attribute 'absent'"):
        load_task("my_tasks:absent")
    sys.modules.pop("my_tasks")


@pytest.mark.parametrize("reference", ["exporters.zoo.digits", ":task", "module:"])
def test_a_malformed_reference_says_how_to_write_one(reference: str) -> None:
    with pytest.raises(TaskError, match=r"write package\.module:task"):
        load_task(reference)


def test_a_missing_module_is_named() -> None:
    with pytest.raises(TaskError, match=r"no module 'no_such_package' for the task 'no_such_package\.tasks:task'"):
        load_task("no_such_package.tasks:task")


def test_a_plan_survives_json() -> None:
    layout = tiny_task().layout
    plan = Plan(Subset(layout, {"0.weight": Slice(0, (1, 3)), "3.bias": None}), 8)
    assert Plan.from_json(layout, json.dumps(plan.to_json())) == plan


@pytest.mark.parametrize("data", ["{", "{}", '{"subset": {}, "micro_batch": 4}', '{"subset": {"3.bias": null}}', "[]"])
def test_what_is_no_plan_is_refused(data: Any) -> None:
    with pytest.raises(ExportError):
        Plan.from_json(tiny_task().layout, data)


def test_a_plan_for_another_layout_is_refused() -> None:
    with pytest.raises(LayoutError, match=r"'9\.weight'"):
        Plan.from_json(tiny_task().layout, {"subset": {"9.weight": None}, "micro_batch": 1})


@pytest.mark.parametrize("micro_batch", [0, True, "4", None, 1.5])
def test_a_plan_needs_a_whole_micro_batch(micro_batch: Any) -> None:
    with pytest.raises(ExportError, match="micro-batch"):
        Plan.from_json(tiny_task().layout, {"subset": {"3.bias": None}, "micro_batch": micro_batch})
