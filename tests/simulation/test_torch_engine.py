"""The simulator's step and the exported program: the same training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from coordinator.simulation.torch_engine import TorchEngine
from exporters import Plan, export
from exporters.zoo.digits import task
from exporters.zoo.digits_data import training
from mobile_sdk import load_engine
from mobile_sdk.data import ArrayDataset
from mobile_sdk.layout import Subset
from mobile_sdk.training import TrainingSettings, train

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
