"""Tasks, data and budgets that planning would fail on are named before it begins."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from coordinator.checks.task import check_task
from coordinator.config import EvaluationSection, parse_config
from mobile_sdk.sizes import parse_bytes

TASK = """\
import numpy as np
import torch
from torch import nn
from exporters import Task

X = np.zeros((30, 4), np.float32)
Y = np.zeros(30, np.int64)

def loss(output, y):
    return nn.functional.cross_entropy(output, y, reduction="none")

def correct(output, y):
    return (output.argmax(1) == y).float()

def held_out():
    return {held_out}

def public():
    return {public}

def broken():
    raise RuntimeError("the sensor is not there")

torch.manual_seed(0)
task = Task(
    nn.Sequential(nn.Linear(4, 8), {between}, nn.Linear(8, 3)), loss, X[:8], Y[:8], metrics={{"{metric}": correct}},
    held_out={function}, labels=["a", "b", "c"], local={local},
)
"""
Check = Callable[..., list[tuple[str, str]]]


@pytest.fixture
def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Check:
    monkeypatch.syspath_prepend(str(tmp_path))
    made: list[str] = []

    def check(
        held_out: str = "X, Y",
        public: str = "X, Y",
        function: str = "held_out",
        local: str = "()",
        budget: str = "1MB",
        task: str = "task",
        between: str = "nn.ReLU()",
        metric: str = "accuracy",
        **sections: Any,
    ) -> list[tuple[str, str]]:
        name = f"checked_{len(made)}"
        made.append(name)
        monkeypatch.delitem(sys.modules, name, raising=False)  # of the test before
        text = TASK.format(
            held_out=held_out, public=public, function=function, local=local, between=between, metric=metric
        )
        (tmp_path / f"{name}.py").write_text(text)
        data = {"run": {"name": "a", "task": f"{name}:{task}"}, "budgets": {"all": budget}} | sections
        if "data" in data.get("planning", {}):
            data["planning"] = {"data": f"{name}:{data['planning']['data']}"}
        return [(f.level, f.sentence) for f in check_task(parse_config(data, tmp_path)) if f.level != "ok"]

    return check


def test_a_task_in_order_has_no_findings(check: Check) -> None:
    assert check(planning={"data": "public"}, stop={"accuracy": 0.9}) == []
    assert check(held_out="X.astype('float64'), Y.astype('int32')") == []
    assert check(held_out="torch.as_tensor(X), torch.as_tensor(Y)") == []


@pytest.mark.parametrize(
    ("held_out", "words"),
    [
        ("np.where(np.arange(30)[:, None] == 7, np.nan, X), Y", "sample 7 has an x that is not finite"),
        ("X[:, :3], Y", r"x has the shape (30, 3); the task takes (n, 4)"),
        ("X, Y + 0.5", "y is float64; the task takes int64"),
        ("X, Y + 3", "sample 0 has the label 3; labels are 0 to 2"),
        ("X, Y[:20]", "has 30 inputs but 20 targets"),
        ("X", "must be a pair (x, y) of arrays, not a ndarray"),
    ],
    ids=["NaN", "shape", "dtype", "label", "count", "no pair"],
)
def test_held_out_data_that_do_not_fit(check: Check, held_out: str, words: str) -> None:
    ((level, sentence),) = check(held_out=held_out)
    assert level == "error"
    assert sentence.startswith("the held-out data")
    assert words in sentence


def test_code_of_the_users_that_fails_is_one_sentence_with_its_line(check: Check, tmp_path: Path) -> None:
    ((_, sentence),) = check(function="broken")
    line = TASK.splitlines().index('    raise RuntimeError("the sensor is not there")') + 1
    file = tmp_path / "checked_0.py"
    assert sentence == f"held_out fails in {file}, line {line}: RuntimeError: the sensor is not there"
    ((_, sentence),) = check(planning={"data": "proxyy"})
    assert "has no attribute 'proxyy'" in sentence
    ((_, sentence),) = check(task="tusk")
    assert "has no attribute 'tusk'; did you mean 'task'?" in sentence
    ((_, sentence),) = check(public="X[:, :2], Y", planning={"data": "public"})
    assert "public: x has the shape (30, 2)" in sentence


def test_a_budget_that_nothing_fits_is_named_with_the_least_that_would_do(check: Check) -> None:
    ((level, sentence),) = check(budget="1KB")
    assert level == "error"
    assert "no plan of task 'Sequential' fits 1.00 KB" in sentence
    assert "set at least that" in sentence


def test_a_budget_is_said_to_suffice_only_where_that_is_certain(check: Check) -> None:
    """What a plan takes differs a little from one measurement to the next."""
    ((_, refused),) = check(budget="1KB")
    takes = parse_bytes(re.findall(r"takes (\S+ KB); set at least that", refused)[0])
    assert check(budget=str(round(1.05 * takes))) == []
    ((level, sentence),) = check(budget=str(round(takes / 1.1)))
    assert level == "warning"
    assert re.search(r"perhaps no plan fits the budget .* which planning finds out: \S+ KB are enough$", sentence)


def test_a_metric_of_an_untrained_head_decides_nothing_without_a_warning(check: Check) -> None:
    assert check(local='["2"]') == []
    ((level, sentence),) = check(local='["2"]', stop={"accuracy": 0.9}, evaluation={"guard": 0.1})
    assert level == "warning"
    assert "stop.accuracy, evaluation.guard would follow a metric that says little" in sentence


def test_a_metric_that_the_task_has_not_is_an_error(check: Check) -> None:
    ((level, sentence),) = check(evaluation={"metric": "f1"})
    assert (level, "set evaluation.metric" in sentence) == ("error", True)


def test_a_task_without_an_accuracy_has_its_loss_watched() -> None:
    section = EvaluationSection()
    assert section.for_task(["accuracy"]) == section
    assert section.for_task(["mae"]) == EvaluationSection(metric="loss", minimise=True)
    assert EvaluationSection(metric="loss").for_task(["accuracy"]).minimise
    assert EvaluationSection(metric="mae").for_task(["mae"]) == EvaluationSection(metric="mae")


def test_a_goal_has_to_be_one_of_the_tasks_metrics(check: Check) -> None:
    goal = {"stop": {"goal": 2.0}, "metric": "mae"}
    assert check(**goal) == [], "without a metric to watch it is the loss's"
    assert check(evaluation={"metric": "mae", "minimise": True}, **goal) == []
    ((level, sentence),) = check(evaluation={"metric": "rmse", "minimise": True}, **goal)
    assert (level, "none of the task's metrics (loss, mae)" in sentence) == ("error", True)


def test_which_values_of_a_metric_of_ones_own_are_better_has_to_be_said(check: Check) -> None:
    ((level, sentence),) = check(evaluation={"metric": "mae"}, metric="mae")
    assert (level, "set evaluation.minimise" in sentence) == ("warning", True)
    assert check(evaluation={"metric": "mae", "minimise": True}, metric="mae") == []
    assert check(metric="mae") == []


def test_batch_normalisation_in_training_mode_is_warned_of(check: Check) -> None:
    norm = "nn.BatchNorm1d(8)"
    assert check(between=f"{norm}.eval()") == []
    ((level, sentence),) = check(between=norm)
    assert level == "warning"
    assert "devices with fewer than 8 samples cannot train" in sentence


def test_a_merge_that_would_spoil_statistics_is_an_error(check: Check) -> None:
    norm = "nn.BatchNorm1d(8)"
    (_, (level, sentence)) = check(between=norm, merge={"optimiser": {"kind": "adam"}})
    assert level == "error"
    assert "treats 1.running_mean and 1 other buffers" in sentence
    ((level, sentence), _) = check(between=norm, training={"batch_size": 12})
    assert (level, "set training.batch_size to a multiple of 8" in sentence) == ("error", True)
