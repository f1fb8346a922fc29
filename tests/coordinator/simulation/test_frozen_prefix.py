"""Layers that nothing trains are computed once for each sample, and nothing else changes."""

from __future__ import annotations

import collections
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import coordinator.simulation.compute.frozen_prefix as prefix_module
from coordinator.simulation.compute.frozen_prefix import FrozenPrefix, behind
from coordinator.simulation.compute.torch_engine import TorchEngine
from coordinator.simulation.compute.workshop import Evaluation, TrainingJob, Workshop, WorkshopFiles
from exporters import Plan, Task, export
from exporters.zoo.convnets import lenet
from mobile_sdk.data import ArrayDataset
from mobile_sdk.layout import Subset
from mobile_sdk.training.settings import TrainingSettings
from mobile_sdk.training.train import TrainingResult, train

SETTINGS = TrainingSettings(epochs=3, batch_size=16, learning_rate=0.05)


def make(*layers: nn.Module) -> Task:
    """A task of images with 1 x 8 x 8 values."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        x, y = torch.randn(4, 1, 8, 8), torch.arange(4) % 3
    return Task(nn.Sequential(*layers), lambda output, y: F.cross_entropy(output, y, reduction="none"), x, y)


def samples(count: int, *shape: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(count, *shape)).astype(np.float32), rng.integers(0, 3, count)


@pytest.mark.parametrize("baked", [(), ("0.weight", "3.weight")], ids=["all-travel", "some-inside"])
def test_a_training_behind_the_frozen_layers_is_the_training_of_the_whole_net(
    baked: tuple[str, ...], tmp_path: Path
) -> None:
    """A worker's update, loss and evaluation are those of the undivided torch step, to rounding."""
    task = lenet()
    names = task.parameter_names()
    program = export(task, plan=Plan(Subset.whole(task.layout, names[-4:]), 16, baked))
    workshop = _workshop(tmp_path, program.manifest.to_bytes())
    x, y = samples(140, 1, 28, 28)
    weights = task.layout.views(program.weights.copy())
    for name in baked:  # a version has nothing there
        weights[name][...] = 0
    chosen = np.arange(3, 36)
    for _ in range(2):  # computed, then kept
        ours = workshop.train(TrainingJob("small", weights, chosen, SETTINGS, 5))
        whole = train(TorchEngine(task, program.manifest), weights, ArrayDataset(x[chosen], y[chosen]), SETTINGS, 5)
        _same(ours, whole)
    chosen = np.arange(5, 138)  # more than are evaluated together
    loss, metrics = workshop.evaluate(Evaluation("small", weights, chosen))
    plain = workshop.engines["small"].evaluate(x[chosen], y[chosen], np.ones(len(chosen), np.float32), weights)
    assert loss == pytest.approx(plain[0], rel=1e-5)
    assert metrics == plain[1]


def test_what_a_worker_did_before_changes_no_bit(tmp_path: Path) -> None:
    """A job gives the same in a worker that has kept its samples, in one that has others, and in a new one."""
    task = lenet()
    program = export(task, plan=Plan(Subset.whole(task.layout, task.parameter_names()[-2:]), 16))
    weights = task.layout.views(program.weights.copy())
    job = TrainingJob("small", weights, np.arange(20), SETTINGS, 1)
    used = _workshop(tmp_path, program.manifest.to_bytes())
    used.train(TrainingJob("small", weights, np.arange(10, 40), SETTINGS, 2))
    used.evaluate(Evaluation("small", weights, np.arange(20)))
    results = [used.train(job), used.train(job), _workshop(tmp_path, program.manifest.to_bytes()).train(job)]
    for result in results[1:]:
        assert result.loss == results[0].loss
        for name, array in result.update.items():
            np.testing.assert_array_equal(array, results[0].update[name])


def test_other_weights_of_the_frozen_layers_are_seen() -> None:
    """If a version came with other weights in front after all, what was kept is made anew."""
    task = make(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(72, 3))
    front, _ = behind(task, ["2.weight"])
    assert front is not None
    x, _ = samples(5, 1, 8, 8)
    weights = {name: tensor.numpy().copy() for name, tensor in task.model.state_dict().items()}
    before = front(x, np.arange(5), weights)
    weights["0.bias"] += 1
    np.testing.assert_allclose(front(x, np.arange(5), weights), before + 1, rtol=1e-5, atol=1e-6)


def test_what_the_example_gave_is_not_kept() -> None:
    """Only a worker's own arrays live as long as what is kept of them."""
    task = make(nn.ReLU(inplace=True), nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(72, 3))
    before = task.example_x.clone()
    front, rest = behind(task, ["3.weight"])
    assert front is not None
    assert not front._kept
    assert rest.example_x.shape == (4, 72)
    torch.testing.assert_close(task.example_x, before)


@pytest.mark.parametrize(
    ("layers", "trained", "kept"),
    [
        pytest.param(
            [nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(72, 3)], "3.bias", ["0", "1", "2"], id="all"
        ),
        pytest.param([nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(72, 3)], "0.bias", None, id="first-is-trained"),
        pytest.param([nn.Flatten(), nn.Linear(64, 3)], "1.bias", None, id="nothing-to-save"),
        pytest.param(
            [nn.Conv2d(1, 2, 3), nn.Dropout(), nn.Conv2d(2, 2, 3), nn.Flatten(), nn.Linear(32, 3)],
            "4.bias",
            ["0"],
            id="dropout-draws",
        ),
        pytest.param(
            [nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(72, 3)],
            "3.bias",
            ["0"],
            id="batch-statistics",
        ),
        pytest.param(
            [nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2).eval(), nn.Flatten(), nn.Linear(72, 3)],
            "3.bias",
            ["0", "1", "2"],
            id="running-statistics",
        ),
        pytest.param(
            [nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU()), nn.Flatten(), nn.Linear(72, 3)],
            "2.bias",
            ["0", "1"],
            id="blocks",
        ),
    ],
)
def test_only_layers_that_treat_each_sample_by_itself_are_taken_apart(
    layers: list[nn.Module], trained: str, kept: list[str] | None
) -> None:
    task = make(*layers)
    front, rest = behind(task, [trained])
    if kept is None:
        assert front is None
        assert rest is task
        return
    assert front is not None
    assert [name for name, _ in task.model.named_children() if name not in dict(rest.model.named_children())] == kept
    x, _ = samples(6, 1, 8, 8)
    task.model.eval()
    with torch.no_grad():
        whole = task.model(torch.from_numpy(x))
        apart = rest.model(torch.from_numpy(front(x, np.arange(6), {}).copy()))
    torch.testing.assert_close(apart, whole)


def test_a_net_that_is_no_sequence_stays_whole() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(8, 8), nn.Linear(8, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(self.first(x)).mean((1, 2))

    x, y = samples(4, 1, 8, 8)
    task = Task(Net(), lambda output, y: F.cross_entropy(output, y, reduction="none"), x, y)
    assert behind(task, ["last.bias"]) == (None, task)


def test_no_more_is_kept_than_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was not used for the longest time goes first, and what is too large is not kept."""
    passes = []
    monkeypatch.setattr(
        prefix_module, "functional_call", lambda *given: passes.append(1) or torch.func.functional_call(*given)
    )
    task = make(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(72, 3))
    x, _ = samples(20, 1, 8, 8)
    front = FrozenPrefix(collections.OrderedDict(list(task.model.named_children())[:2]), limit=2 * 5 * 72 * 4)
    first, second, third = np.arange(5), np.arange(5, 10), np.arange(10, 15)
    for chosen, computed in [(first, 1), (second, 2), (first, 2), (third, 3), (first, 3), (second, 4)]:
        front(x, chosen, {})
        assert len(passes) == computed
    front(x, np.arange(20), {})
    front(x, np.arange(20), {})
    assert len(passes) == 6


def _workshop(folder: Path, manifest: bytes) -> Workshop:
    x, y = samples(140, 1, 28, 28)
    paths = folder / "x.npy", folder / "y.npy"
    np.save(paths[0], x)
    np.save(paths[1], y)
    return Workshop(WorkshopFiles("exporters.zoo.convnets:lenet", {"small": manifest}, *paths, held_out=paths))


def _same(ours: TrainingResult, theirs: TrainingResult) -> None:
    assert ours.steps == theirs.steps
    assert ours.loss == pytest.approx(theirs.loss, rel=1e-5)
    for name, array in theirs.update.items():
        np.testing.assert_allclose(ours.update[name], array, atol=1e-5 * np.abs(array).max())
