"""One rule says which samples each step takes: what is predicted of a training is what ``train`` does."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st

from mobile_sdk.data import ArrayDataset
from mobile_sdk.layout import Arrays, Layout, Parameter, Subset, Vector
from mobile_sdk.manifest import FileEntry, InputContract, Manifest, Memory
from mobile_sdk.training.settings import TrainingSettings
from mobile_sdk.training.steps import count_work, micro_batches, step_spans
from mobile_sdk.training.train import train

LAYOUT = Layout([Parameter("w", (2,))])


class Regression:
    """Least squares in numpy, whose clock moves by ``seconds`` with each micro-batch; what came is in ``taken``."""

    runtime = ""

    def __init__(self, micro_batch: int, seconds: float) -> None:
        self.manifest = Manifest(
            run="",
            serial=0,
            tier="small",
            task="regression",
            files={"program.pte": FileEntry.of(b"")},
            methods={},
            layout=LAYOUT,
            subset=Subset(LAYOUT, {"w": None}),
            contract=InputContract((2,), "float32", (), "int64"),
            metrics=(),
            micro_batch=micro_batch,
            memory=Memory(0, 0, 0),
        )
        self.taken: list[int] = []
        self._seconds = seconds

    def now(self) -> float:
        return len(self.taken) * self._seconds

    def train_step(
        self,
        x: npt.NDArray[Any],
        y: npt.NDArray[Any],
        sample_weight: Vector,
        weights: Arrays,
        dropout: np.random.Generator | None = None,
    ) -> tuple[float, dict[str, float], dict[str, Vector]]:
        self.taken.append(len(x))
        error = sample_weight * (x @ weights["w"] - y.astype(np.float32))
        return float((error**2).sum() / 2), {}, {"w": (error @ x).astype(np.float32)}

    def evaluate(self, *arguments: Any) -> Any:
        raise NotImplementedError

    def predict(self, *arguments: Any) -> Any:
        raise NotImplementedError

    def close(self) -> None:
        """There is nothing to free."""


settings_of_trainings = st.builds(
    TrainingSettings,
    epochs=st.integers(1, 4),
    steps=st.integers(0, 12),
    batch_size=st.integers(1, 12),
    seconds=st.sampled_from([0.0, 0.25, 0.5, 1.0, 3.0, 100.0]),
    learning_rate=st.just(0.001),
)


@given(settings_of_trainings, st.integers(1, 30), st.integers(1, 8), st.sampled_from([0.125, 0.25, 1.0, 4.0]))
def test_what_is_predicted_of_a_training_is_what_it_does(
    chosen: TrainingSettings, samples: int, micro_batch: int, seconds: float
) -> None:
    engine = Regression(micro_batch, seconds)
    rng = np.random.default_rng(samples)
    data = ArrayDataset(rng.standard_normal((samples, 2)).astype(np.float32), rng.integers(0, 2, samples))
    result = train(engine, {"w": np.zeros(2, np.float32)}, data, chosen, seed=1, now=engine.now)
    steps, micro = count_work(samples, chosen, micro_batch=micro_batch, micro_batch_seconds=seconds)
    assert (result.steps, len(engine.taken)) == (steps, micro)


@given(settings_of_trainings, st.integers(1, 30), st.integers(1, 8))
def test_as_many_steps_without_a_limit_give_the_same_update(
    chosen: TrainingSettings, samples: int, micro_batch: int
) -> None:
    """What the simulator hands to its workers: the steps that the device has time for."""
    rng = np.random.default_rng(samples)
    data = ArrayDataset(rng.standard_normal((samples, 2)).astype(np.float32), rng.integers(0, 2, samples))
    limited = Regression(micro_batch, 0.25)
    first = train(limited, {"w": np.zeros(2, np.float32)}, data, chosen, seed=1, now=limited.now)
    steps, _ = count_work(samples, chosen, micro_batch=micro_batch, micro_batch_seconds=0.25)
    free = Regression(micro_batch, 0.25)
    again = dataclasses.replace(chosen, steps=steps, seconds=0.0)
    second = train(free, {"w": np.zeros(2, np.float32)}, data, again, seed=1, now=free.now)
    np.testing.assert_array_equal(first.update["w"], second.update["w"])
    assert (first.steps, first.samples, first.loss) == (second.steps, second.samples, second.loss)
    assert limited.taken == free.taken


def test_a_time_limit_leaves_at_least_one_step_and_none_begins_once_it_is_reached() -> None:
    chosen = TrainingSettings(epochs=1, batch_size=4, seconds=1.0)
    assert count_work(20, chosen, micro_batch=4, micro_batch_seconds=5.0) == (1, 1)
    assert count_work(20, chosen, micro_batch=4, micro_batch_seconds=0.5) == (2, 2)
    assert count_work(20, chosen, micro_batch=4, micro_batch_seconds=0.499) == (3, 3)
    assert count_work(20, chosen, micro_batch=2, micro_batch_seconds=0.25) == (2, 4)


def test_steps_take_the_place_of_epochs() -> None:
    assert list(step_spans(5, TrainingSettings(epochs=9, steps=1, batch_size=2))) == [(0, 2)]
    assert list(step_spans(5, TrainingSettings(steps=4, batch_size=2))) == [(0, 2), (2, 4), (4, 5), (0, 2)]
    assert list(step_spans(5, TrainingSettings(epochs=2, batch_size=5))) == [(0, 5), (0, 5)]


def test_a_batch_is_cut_into_micro_batches_of_which_the_last_may_be_short() -> None:
    assert micro_batches(8, 4) == [(0, 4), (4, 8)]
    assert micro_batches(9, 4) == [(0, 4), (4, 8), (8, 9)]
    assert micro_batches(3, 4) == [(0, 3)]
