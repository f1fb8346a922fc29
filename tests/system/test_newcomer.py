"""
A newcomer's own task, from an own package: motion of a phone, 6 channels of 64 readings, four activities.

Every person has a pace, a force and a way of wearing the phone of their own. Data and task are apart: devices read the
data without torch.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import BIN, PATIENCE, Process

DATA = '''\
"""Motion windows: x (n, 6, 64) float32, y (n,) int64; needs numpy alone."""
import numpy as np

ACTIVITIES = ("still", "walking", "running", "stairs")


def windows(person, n=40):
    rng = np.random.default_rng(person)
    pace, force, tilt = rng.uniform(0.8, 1.2), rng.uniform(0.7, 1.4), rng.normal(0, 0.2, (6, 1))
    y = rng.choice(len(ACTIVITIES), n, p=rng.dirichlet(np.full(len(ACTIVITIES), 2.0)))
    time = np.linspace(0, 2 * np.pi, 64)
    rates, heights = np.array([0.0, 4.0, 9.0, 6.0]), np.array([0.05, 0.6, 1.4, 0.8])
    x = heights[y, None, None] * force * np.sin(
        rates[y, None, None] * pace * time + rng.uniform(0, 6, (n, 6, 1)) + np.arange(6)[:, None]
    )
    x += tilt + rng.normal(0, 0.1, x.shape)
    return x, y.astype(np.int64)


def one_broken_sensor(person):
    x, y = windows(person)
    x[5, 2, 10] = np.nan
    return {"x": x, "y": y}


def everybody_else():
    parts = [windows(person, 20) for person in range(100, 110)]
    return np.concatenate([x for x, _ in parts]), np.concatenate([y for _, y in parts])
'''
TASK = """\
import torch
import torch.nn.functional as F
from torch import nn

from ftte import Task

from .data import ACTIVITIES, everybody_else, windows


def loss(output, y):
    return F.cross_entropy(output, y, reduction="none")


def correct(output, y):
    return (output.argmax(1) == y).float()


def task():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv1d(6, 16, 5, stride=2, padding=2), nn.GroupNorm(4, 16), nn.ReLU(),
        nn.Conv1d(16, 24, 5, stride=2, padding=2), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(24, 4),
    )
    x, y = windows(0, 16)
    return Task(
        model, loss, x.astype("float32"), y, metrics={"accuracy": correct}, held_out=everybody_else, labels=ACTIVITIES
    )
"""
RUN = """\
[run]
name = "motion"
task = "motion.task:task"
[server]
port = 0
[budgets]
phone = "8MB"
[training]
epochs = 2
[merge]
buffer = 3
[stop]
versions = 12
"""


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Path]:
    """The newcomer's folder, from which all commands are typed."""
    (tmp_path / "motion").mkdir()
    (tmp_path / "motion" / "__init__.py").touch()
    (tmp_path / "motion" / "data.py").write_text(DATA)
    (tmp_path / "motion" / "task.py").write_text(TASK)
    (tmp_path / "run.toml").write_text(RUN)
    before = Path.cwd()
    os.chdir(tmp_path)
    yield tmp_path
    os.chdir(before)


def ftte(*arguments: str) -> str:
    result = subprocess.run([BIN / "ftte", *arguments], capture_output=True, text=True, timeout=600, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.mark.full
def test_an_own_task_is_checked_served_learned_and_taken_home(project: Path) -> None:
    findings = json.loads(ftte("doctor", "run.toml", "--json"))
    assert [f["sentence"] for f in findings if f["level"] == "error"] == []
    server = Process(BIN / "ftte", "serve", "run.toml", log=project / "serve.log")
    devices: list[Process] = []
    try:
        url, key = server.wait_for(r"join (\S+) --run motion --key ([0-9a-f]{64})", 600).groups()
        for stage in ("searching what to train", r"exporting and verifying \d", r"exported and verified 1 of \d"):
            assert re.search(f"^{stage}", server.output, re.MULTILINE), "planning takes a minute: it says how far it is"
        for person in range(1, 5):
            data = f"motion.data:{'one_broken_sensor' if person == 1 else 'windows'}({person})"
            join = ("join", url, "--run", "motion", "--key", key, "--data", data, "--name", f"person-{person}")
            storage = ("--storage", project / f"person-{person}")
            devices.append(Process(BIN / "ftte-device", *join, *storage, log=project / f"person-{person}.log"))
        devices[0].wait_for(r"1 of 40 samples are left out: sample 5 has an x that is not finite")
        assert [device.wait() for device in devices] == [0] * 4
        assert server.wait() == 0, server.output
    finally:
        for process in (server, *devices):
            process.stop()
    assert "torch not loaded" in devices[1].output
    summary = json.loads((project / "state" / "summary.json").read_text())
    assert summary["versions"] == 12
    assert summary["accuracy"] > max(summary["initial_accuracy"], 0.25) + 0.1, summary["accuracy"]
    assert summary["wall_seconds"] < PATIENCE * 5


@pytest.mark.full
def test_a_task_that_fails_is_one_sentence_with_the_newcomers_file_and_line(project: Path) -> None:
    (project / "motion" / "task.py").write_text(TASK.replace("windows(0, 16)", "windows(0, 16, 3)"))
    for command in (("doctor", "run.toml"), ("serve", "run.toml"), ("export", "motion.task:task", "-o", "program")):
        result = subprocess.run([BIN / "ftte", *command], capture_output=True, text=True, timeout=600, check=False)
        said = result.stdout + result.stderr
        assert result.returncode == 1, said
        line = TASK.splitlines().index("    x, y = windows(0, 16)") + 1
        assert f"task.py, line {line}: TypeError" in said
        assert "Traceback" not in said
