"""A run goes on only with the task that it began with."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from coordinator.config import Config, parse_config
from coordinator.errors import StoreError
from coordinator.programs.export_workers import identify_task
from coordinator.programs.same_task import TaskComparison, check_same_task

TASK = """\
import torch
from torch import nn
from exporters import Task

def loss(output, y):
    return nn.functional.cross_entropy(output, y, reduction="none")

torch.manual_seed(0)
task = Task(nn.Linear(4, {classes}), loss, torch.zeros(4, 4), torch.zeros(4, dtype=torch.int64))
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "tiny_task.py").write_text(TASK.format(classes=3))
    return parse_config({"run": {"name": "tiny", "task": "tiny_task:task"}, "budgets": {"all": "1MB"}}, tmp_path)


def test_another_task_is_refused_by_what_differs_and_a_new_comment_is_not(
    config: Config, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    began = identify_task(config.run.task)
    said: list[str] = []
    check_same_task(config, began, said.append)
    assert said == [], "nothing is loaded where no source has changed"

    (tmp_path / "tiny_task.py").write_text("# A remark.\n" + TASK.format(classes=3))
    check_same_task(config, began, said.append)
    assert said == ["tiny_task changed since the run began: comparing the task with that of its beginning"]
    assert "goes on with the model and loss of its beginning" in caplog.text

    (tmp_path / "tiny_task.py").write_text(TASK.format(classes=5))
    with pytest.raises(
        StoreError, match=r"'weight' had the shape \(3, 4\) and has \(5, 4\).*restore the task, or begin"
    ):
        check_same_task(config, began, said.append)

    (tmp_path / "tiny_task.py").unlink()
    check_same_task(config, began, said.append)
    assert "its task cannot be loaded" in caplog.text


def test_a_task_is_loaded_once_for_each_change_of_its_sources(config: Config, tmp_path: Path) -> None:
    (tmp_path / "helper.py").write_text("CLASSES = 3\n")
    uses_helper = "from helper import CLASSES\n" + TASK.format(classes="CLASSES")
    source = tmp_path / "tiny_task.py"
    began = identify_task(config.run.task)
    comparison = TaskComparison(config)
    said: list[str] = []

    source.write_text(uses_helper)
    for _ in range(2):
        assert comparison.compare(began, said.append) == ""
    assert len(said) == 1
    (tmp_path / "helper.py").write_text("CLASSES = 5\n")  # which the run's beginning did not know
    for _ in range(2):
        assert "'weight' had the shape (3, 4) and has (5, 4)" in comparison.compare(began, said.append)
    assert len(said) == 2
    source.write_text(TASK.format(classes=3))
    assert comparison.compare(began, said.append) == ""
    assert len(said) == 2, "it is as it was"


def test_comparing_needs_no_torch() -> None:
    code = "import sys, coordinator.programs.same_task; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
