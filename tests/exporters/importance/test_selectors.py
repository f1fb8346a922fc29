"""Selectors: one form, each finds what it is made to find, and shuffling takes it away."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from exporters import ExportError, Task
from exporters.cache.journal import Journal
from exporters.importance import SELECTORS, Scores, shuffled
from exporters.importance.evidence import Evidence
from exporters.importance.finetune import FineTuning, fine_tune
from exporters.processes import Workers
from exporters.space import BIAS, FROZEN, LEVELS, Space
from tests.exporters.export_tasks import correct, per_sample

_FEATURES = 12


def _samples(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Three classes, told apart by the first three features."""
    x = torch.randn(n, _FEATURES, generator=torch.Generator().manual_seed(5))
    return x, x[:, :3].argmax(1)


def _disturbed() -> Task:
    """A net whose head is right and whose first layer is broken: only training the first layer helps."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(_FEATURES, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 3))
    x, y = _samples(600)
    task = Task(model, per_sample, x[:8], y[:8], metrics={"accuracy": correct})
    fine_tune(task, Space(task).subset((5, 5, 5)), (x, y), (x, y), FineTuning(150, learning_rate=0.1), model)
    with torch.no_grad():
        first = model.get_parameter("0.weight")
        first.copy_(first.roll(3, 1))  # as if the sensor's channels had been exchanged
    return task


@pytest.fixture(scope="module")
def task() -> Task:
    return _disturbed()


@pytest.fixture
def evidence(task: Task) -> Evidence:
    return Evidence(Space(task), _samples(450), fine_tuning=FineTuning(30, learning_rate=0.1))


@pytest.mark.parametrize("name", SELECTORS)
def test_every_selector_scores_every_layer_at_every_level(evidence: Evidence, name: str) -> None:
    scores = SELECTORS[name](evidence)
    assert scores.gains.shape == (3, len(LEVELS))
    assert np.isfinite(scores.gains).all()
    assert (scores.gains[:, FROZEN] == 0).all()
    assert scores.unit


@pytest.mark.parametrize("name", SELECTORS)
def test_the_same_seed_gives_the_same_scores(evidence: Evidence, name: str) -> None:
    again = Evidence(evidence.space, evidence.samples, fine_tuning=evidence.fine_tuning)
    assert (SELECTORS[name](evidence).gains == SELECTORS[name](again).gains).all()


@pytest.mark.parametrize("name", ["fisher", "magnitude", "sensitivity", "random"])
def test_more_of_a_layer_is_worth_more(evidence: Evidence, name: str) -> None:
    gains = SELECTORS[name](evidence).gains
    assert (np.diff(gains[:, BIAS:], axis=1) >= 0).all()


def test_contribution_finds_the_broken_layer(evidence: Evidence) -> None:
    gains = SELECTORS["contribution"](evidence).gains
    assert gains[:, -1].argmax() == 0
    assert gains[0, -1] > max(0.08, 2 * gains[1, -1])


def test_shuffled_scores_are_the_same_scores_of_other_layers(evidence: Evidence) -> None:
    scores = SELECTORS["contribution"](evidence)
    other = shuffled(scores, 3)
    assert sorted(map(tuple, other.gains)) == sorted(map(tuple, scores.gains))
    assert other.finalists == 0


def test_magnitude_counts_squared_weights_by_channel(task: Task, evidence: Evidence) -> None:
    layer = evidence.space.layers[0]
    gains = SELECTORS["magnitude"](evidence).gains[0]
    weight = task.model.get_parameter("0.weight").detach().double()
    bias = float((task.model.get_parameter("0.bias").detach().double() ** 2).sum())
    assert gains[BIAS] == pytest.approx(bias)
    half = float((weight[:, list(layer.order[:6])] ** 2).sum())
    assert gains[4] == pytest.approx(bias + half)


def test_sensitivity_is_the_trace_of_the_output_jacobian(evidence: Evidence, task: Task) -> None:
    """Of the last layer the Jacobian is known: the output moves by the input, so the trace is (|h|^2 + 1) x outputs."""
    gains = SELECTORS["sensitivity"](evidence).gains[2]
    random = torch.Generator().manual_seed(0)
    assert evidence.samples is not None
    x = evidence.samples[0][torch.randperm(450, generator=random)[:64]]
    model: Any = task.model
    hidden = model[:4](x).detach()
    assert 1.5 < gains[BIAS] < 6
    assert gains[5] == pytest.approx(3 * float((hidden**2).sum(1).mean() + 1), rel=0.25)


def test_sensitivity_leaves_the_model_as_it_was(evidence: Evidence, task: Task) -> None:
    before = task.initial_weights()
    SELECTORS["sensitivity"](evidence)
    assert (task.initial_weights() == before).all()


def test_contribution_without_data_is_refused_with_what_to_give(task: Task) -> None:
    with pytest.raises(ExportError, match="proxy="):
        SELECTORS["contribution"](Evidence(Space(task)))


def test_fine_tuning_moves_the_kept_channels_alone(task: Task) -> None:
    space = Space(task)
    levels = (3, 0, 1)
    import copy

    model = copy.deepcopy(task.model)
    fine_tune(task, space.subset(levels), _samples(64), _samples(64), FineTuning(3), model)
    moved = torch.cat([p.detach().reshape(-1) for p in model.parameters()]).numpy() != task.initial_weights()
    assert set(np.flatnonzero(moved)) <= set(space.subset(levels).positions().tolist())
    assert moved.any()


def test_processes_give_what_one_gives(task: Task, evidence: Evidence) -> None:
    parallel = Evidence(
        Space(task),
        evidence.samples,
        fine_tuning=evidence.fine_tuning,
        workers=Workers(2, start_up_seconds=0),
        journal=Journal(),
    )
    assert (SELECTORS["contribution"](parallel).gains == SELECTORS["contribution"](evidence).gains).all()


class _Stopped(Exception):
    """Somebody pressed a key."""


def test_a_stopped_analysis_goes_on_where_it_was(task: Task, evidence: Evidence, tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    seen: list[int] = []

    def stop(stage: str, done: int, total: int) -> None:
        seen.append(done)
        if done == 5:
            raise _Stopped

    def go(progress: Any) -> Scores:
        settings = FineTuning(30, learning_rate=0.1)
        return SELECTORS["contribution"](
            Evidence(Space(task), evidence.samples, fine_tuning=settings, journal=Journal(path), progress=progress)
        )

    with pytest.raises(_Stopped):
        go(stop)
    assert len(Journal(path)) == 5
    resumed: list[int] = []
    gains = go(lambda stage, done, total: resumed.append(done)).gains
    assert resumed[0] == 5
    assert (gains == SELECTORS["contribution"](evidence).gains).all()


def test_a_damaged_state_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    path.write_text("{")
    with pytest.raises(ExportError, match=r"state\.json is not the state of a search"):
        Journal(path)
