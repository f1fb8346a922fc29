"""The simulator's step and the exported program: the same training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from coordinator.config import parse_config
from coordinator.programs.begin import begin_or_resume
from coordinator.programs.run_key import RunKey
from coordinator.programs.tiers import unpacked_manifest, unpacked_program
from coordinator.simulation.compute.torch_engine import TorchEngine
from coordinator.simulation.compute.workshop import Workshop, WorkshopFiles
from coordinator.store.sqlite import SqliteStore
from exporters import Plan, export
from exporters.zoo.digits import task
from exporters.zoo.digits_data import training
from mobile_sdk import load_engine
from mobile_sdk.data import ArrayDataset
from mobile_sdk.layout import Subset
from mobile_sdk.manifest import MANIFEST_FILE, PROGRAM_FILE
from mobile_sdk.training.settings import TrainingSettings
from mobile_sdk.training.train import train
from mobile_sdk.weights import map_weights

NAMES = task.parameter_names()
PLANS = {
    "everything": Plan.everything(task),
    "last layer": Plan(Subset.whole(task.layout, NAMES[-2:]), 16),
    "micro-batch of 4": Plan(Subset.whole(task.layout, NAMES[-4:]), 4),
}
SETTINGS = TrainingSettings(epochs=2, batch_size=16, learning_rate=0.05, momentum=0.5)


@pytest.mark.parametrize("name", PLANS)
def test_fifty_steps_of_both_agree(name: str, tmp_path: Path) -> None:
    """Local training in torch and in the native runtime: the same update, to the rounding of 50 steps in float32."""
    program = export(task, plan=PLANS[name])
    program.save(tmp_path)
    x, y = training()
    data = ArrayDataset(x[:400], y[:400])
    weights = task.layout.views(program.weights.copy())
    native = load_engine(tmp_path)
    try:
        ours = train(native, weights, data, SETTINGS, 7)
    finally:
        native.close()
    torch = train(TorchEngine(task, program.manifest), weights, data, SETTINGS, 7)
    assert ours.steps == torch.steps == 50
    assert torch.loss == pytest.approx(ours.loss, rel=1e-4)
    for parameter in program.manifest.subset:
        size = np.abs(ours.update[parameter]).max()
        np.testing.assert_allclose(torch.update[parameter], ours.update[parameter], atol=1e-3 * size)


@pytest.mark.full
def test_workers_have_the_same_rounded_weights_inside_as_the_programs(tmp_path: Path) -> None:
    """Frozen convolutions on a coarse grid, baked in: a run's program, its weights and a worker agree."""
    planning = {"mode": "common", "bake": True, "frozen_bits": 4}
    run = {"name": "letters", "task": "exporters.zoo.convnets:lenet", "state": "state"}
    config = parse_config({"run": run, "budgets": {"small": "1MB"}, "planning": planning}, tmp_path)
    store = SqliteStore(config.run.state)
    try:
        key = RunKey.load_or_create(config.run.state / "run.key")
        (tier,) = begin_or_resume(config, store, key, 0.0, print)
        manifest = unpacked_manifest(store.artifacts, tier.record)
        (tmp_path / MANIFEST_FILE).write_bytes(manifest)
        (tmp_path / PROGRAM_FILE).write_bytes(unpacked_program(store.artifacts, tier.record))
        weights = map_weights(
            tier.manifest.layout, [store.artifacts.path(r.sha256) for r in store.versions.latest().weights]
        )
    finally:
        store.close()
    assert "0.weight" in tier.manifest.baked
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(16, 1, 28, 28)).astype(np.float32), rng.integers(0, 10, 16)
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", y)
    batch = x, y, np.ones(16, np.float32), weights
    native = load_engine(tmp_path)
    try:
        loss, _, gradients = native.train_step(*batch)
        gradients = {name: gradient.copy() for name, gradient in gradients.items()}
    finally:
        native.close()
    losses = []
    for bits in (4, None):
        files = WorkshopFiles(run["task"], {"small": manifest}, tmp_path / "x.npy", tmp_path / "y.npy", (), bits)
        found, _, others = Workshop(files).engines["small"].train_step(*batch)
        losses.append(found)
        if bits:
            for name, gradient in gradients.items():
                np.testing.assert_allclose(others[name], gradient, atol=1e-4 * np.abs(gradient).max())
    assert losses[0] == pytest.approx(loss, rel=1e-5)
    assert losses[1] != pytest.approx(loss, rel=1e-5), "without rounding it would be another net"
