"""A simulated training takes the virtual time of the steps that it does."""

from __future__ import annotations

import pytest

from coordinator.simulation.compute.step_times import Timing
from mobile_sdk.training.settings import TrainingSettings

from ...mobile_sdk.training.test_steps import Regression

TIMING = Timing({"small": 0.5})
MANIFEST = Regression(micro_batch=4, seconds=0.0).manifest


@pytest.mark.parametrize(
    ("chosen", "steps", "seconds"),
    [
        (TrainingSettings(epochs=3, batch_size=8), 9, 3 * 5 * 0.5),
        (TrainingSettings(epochs=3, batch_size=8, steps=1), 1, 2 * 0.5),
        (TrainingSettings(epochs=3, batch_size=8, steps=4), 4, 7 * 0.5),
        (TrainingSettings(epochs=3, batch_size=8, seconds=3.5), 2, 4 * 0.5),
        (TrainingSettings(epochs=3, batch_size=8, seconds=0.1), 1, 2 * 0.5),
    ],
    ids=["epochs", "one step", "steps", "seconds", "less than a step"],
)
def test_a_training_takes_its_steps_time(chosen: TrainingSettings, steps: int, seconds: float) -> None:
    """20 samples are 2, 2 and 1 micro-batches of 4; the device is half as fast as the machine that was measured."""
    assert TIMING.training(MANIFEST, 20, chosen, slowdown=2.0) == (steps, seconds)
