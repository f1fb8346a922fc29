"""Local training: the optimisers are PyTorch's, batches are exact, and nothing depends on how they are cut."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mobile_sdk import safetensors
from mobile_sdk.data import ArrayDataset
from mobile_sdk.engines import load_engine
from mobile_sdk.errors import ProtocolError
from mobile_sdk.training.checkpoint import Checkpoint
from mobile_sdk.training.optimisers import SGD, Adam, clip_gradients
from mobile_sdk.training.settings import TrainingSettings
from mobile_sdk.training.train import Cancelled, Diverged, train

from ..engines import native_program as program


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (SGD(learning_rate=0.1), lambda p: torch.optim.SGD(p, 0.1)),
        (SGD(learning_rate=0.1, weight_decay=0.01), lambda p: torch.optim.SGD(p, 0.1, weight_decay=0.01)),
        (
            SGD(learning_rate=0.1, momentum=0.9, weight_decay=0.01),
            lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, weight_decay=0.01),
        ),
        (
            SGD(learning_rate=0.1, momentum=0.9, nesterov=True),
            lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, nesterov=True),
        ),
        (Adam(learning_rate=0.01), lambda p: torch.optim.Adam(p, 0.01)),
        (
            Adam(learning_rate=0.01, beta1=0.8, beta2=0.95, epsilon=1e-4, weight_decay=0.1),
            lambda p: torch.optim.Adam(p, 0.01, (0.8, 0.95), 1e-4, weight_decay=0.1),
        ),
        (
            Adam(learning_rate=0.01, weight_decay=0.1, decoupled=True),
            lambda p: torch.optim.AdamW(p, 0.01, weight_decay=0.1),
        ),
    ],
    ids=["sgd", "sgd-decay", "momentum", "nesterov", "adam", "adam-decay", "adamw"],
)
def test_optimisers_do_what_those_of_torch_do(ours: Any, theirs: Any) -> None:
    rng = np.random.default_rng(0)
    weights = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in (("a", (3, 4)), ("b", (5,)))}
    tensors = {name: torch.tensor(array, requires_grad=True) for name, array in weights.items()}
    optimiser = theirs(list(tensors.values()))
    for _ in range(30):
        gradients = {name: rng.standard_normal(array.shape).astype(np.float32) for name, array in weights.items()}
        for name, tensor in tensors.items():
            tensor.grad = torch.tensor(gradients[name])
        optimiser.step()
        for name, step in ours.steps({n: g.copy() for n, g in gradients.items()}, weights.__getitem__):
            weights[name] -= step
    for name, tensor in tensors.items():
        np.testing.assert_allclose(weights[name], tensor.detach().numpy(), rtol=2e-4, atol=2e-6)


@given(st.floats(0.01, 100), st.integers(0, 100))
def test_clipping_is_that_of_torch(norm: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    gradients = {name: rng.standard_normal(6).astype(np.float32) for name in "ab"}
    tensors = [torch.zeros(6, requires_grad=True) for _ in gradients]
    for tensor, gradient in zip(tensors, gradients.values(), strict=True):
        tensor.grad = torch.tensor(gradient)
    torch.nn.utils.clip_grad_norm_(tensors, norm)
    clip_gradients(gradients, norm)
    for tensor, gradient in zip(tensors, gradients.values(), strict=True):
        assert tensor.grad is not None
        np.testing.assert_allclose(gradient, tensor.grad.numpy(), rtol=1e-5)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The hand-written program: 4 samples a micro-batch, 6 features, a slice of the weights trained."""
    content = program.program_bytes()
    folder = program.write(tmp_path_factory.mktemp("program"), content, program.manifest_for(content))
    engine = load_engine(folder)
    yield engine
    engine.close()


def by_torch(x: Any, y: Any, weights: Any, chosen: TrainingSettings, seed: int, make: Any) -> dict[str, np.ndarray]:
    """The same training in torch: autograd on whole batches, torch's optimiser on the trained slice."""
    start = program.SUBSET.compact(weights)
    parts = {name: torch.tensor(array, requires_grad=True) for name, array in start.items()}
    optimiser = make(list(parts.values()))
    order = np.random.default_rng(seed)
    steps = 0
    while steps < chosen.count_steps(len(x)):
        shuffled = order.permutation(len(x))
        for begin in range(0, len(x), chosen.batch_size):
            if steps == chosen.count_steps(len(x)):
                break
            pick = shuffled[begin : begin + chosen.batch_size]
            full = {name: array.copy() for name, array in weights.items()}
            for name, part in parts.items():
                full[name][program.SUBSET.selector(name)] = part.detach().numpy()
            _, _, gradients = program.by_autograd(x[pick], y[pick], np.ones(len(pick), np.float32), full)
            for name, part in parts.items():
                gradient = gradients[name] / len(pick) + chosen.proximal * (part.detach().numpy() - start[name])
                part.grad = torch.tensor(gradient.astype(np.float32))
            if chosen.clip_norm:
                torch.nn.utils.clip_grad_norm_(list(parts.values()), chosen.clip_norm)
            optimiser.step()
            steps += 1
    return {name: part.detach().numpy() - start[name] for name, part in parts.items()}


@pytest.mark.parametrize(
    ("chosen", "make"),
    [
        (TrainingSettings(epochs=2, batch_size=4), lambda p: torch.optim.SGD(p, 0.05)),
        (TrainingSettings(epochs=3, batch_size=7, momentum=0.9), lambda p: torch.optim.SGD(p, 0.05, momentum=0.9)),
        (
            TrainingSettings(steps=11, batch_size=9, optimiser="adamw", learning_rate=0.01, weight_decay=0.1),
            lambda p: torch.optim.AdamW(p, 0.01, weight_decay=0.1),
        ),
        (
            TrainingSettings(epochs=2, batch_size=13, proximal=0.5, clip_norm=0.3),
            lambda p: torch.optim.SGD(p, 0.05),
        ),
    ],
    ids=["one-micro-batch", "accumulated", "steps", "proximal-clipped"],
)
def test_training_is_that_of_torch_whatever_the_batch(engine: Any, chosen: TrainingSettings, make: Any) -> None:
    """Batches of 4, 7, 9 and 13 of 17 samples in micro-batches of 4: every short end is exact."""
    x, y, _, weights = program.example(17, seed=3)
    result = train(engine, weights, ArrayDataset(x, y), chosen, 5)
    wanted = by_torch(x, y, weights, chosen, 5, make)
    assert result.steps == chosen.count_steps(17)
    for name, array in wanted.items():
        np.testing.assert_allclose(result.update[name], array, rtol=1e-3, atol=1e-6)


def test_the_same_arguments_give_the_same_update_and_another_seed_another(engine: Any) -> None:
    x, y, _, weights = program.example(17, seed=3)
    chosen = TrainingSettings(epochs=2, batch_size=5, momentum=0.5)
    first, again, other = (train(engine, weights, ArrayDataset(x, y), chosen, seed) for seed in (1, 1, 2))
    assert all((first.update[name] == again.update[name]).all() for name in first.update)
    assert any((first.update[name] != other.update[name]).any() for name in first.update)


def test_a_time_limit_ends_the_training_after_the_step_that_exceeds_it(engine: Any) -> None:
    x, y, _, weights = program.example(17, seed=3)
    chosen = TrainingSettings(epochs=100, batch_size=4, seconds=2.5)
    ticks = iter(range(1000))
    result = train(engine, weights, ArrayDataset(x, y), chosen, 1, now=lambda: float(next(ticks)))
    assert result.steps == 3
    assert result.samples == 12, "only what took part counts"
    late = dataclasses.replace(chosen, seconds=0.001)
    assert train(engine, weights, ArrayDataset(x, y), late, 1).steps >= 1


class Kept:
    """A keeper in memory, as bytes."""

    def __init__(self) -> None:
        self.content = b""
        self.numbers: Any = None

    def load(self) -> Checkpoint | None:
        return Checkpoint(safetensors.loads(self.content)[0], json.loads(self.numbers)) if self.content else None

    def save(self, checkpoint: Checkpoint) -> None:
        self.content = safetensors.dumps(checkpoint.arrays)
        self.numbers = json.dumps(checkpoint.numbers)


@pytest.mark.parametrize("optimiser", ["sgd", "adam"])
@pytest.mark.parametrize("stops", [[1], [4], [5, 11], [2, 3, 13]], ids=str)
def test_a_training_that_was_stopped_goes_on_to_the_same_update(engine: Any, optimiser: str, stops: list[int]) -> None:
    """Wherever it is stopped, within a pass over the samples or between two, and as often as one likes."""
    x, y, _, weights = program.example(17, seed=3)
    chosen = TrainingSettings(epochs=3, batch_size=4, optimiser=optimiser, momentum=0.5, learning_rate=0.01)
    whole = train(engine, weights, ArrayDataset(x, y), chosen, 1)
    told: list[int] = []
    kept = Kept()

    def stop_at(step: int) -> Any:
        def progress(done: int, steps: int, loss: float) -> None:
            told.append(done)
            if done == step:
                raise Cancelled("the phone was unplugged")

        return progress

    for step in stops:
        with pytest.raises(Cancelled):
            train(engine, weights, ArrayDataset(x, y), chosen, 1, stop_at(step), keeper=kept)
    result = train(engine, weights, ArrayDataset(x, y), chosen, 1, stop_at(0), keeper=kept)
    assert told == list(range(1, 16)), "no step is done twice"
    assert all((result.update[name] == whole.update[name]).all() for name in whole.update)
    assert (result.steps, result.samples, result.loss) == (whole.steps, whole.samples, whole.loss)
    assert result.metrics == whole.metrics


def test_a_training_keeps_how_far_it_went_every_minute_and_its_time_limit_counts_what_was_before(engine: Any) -> None:
    x, y, _, weights = program.example(17, seed=3)
    data, kept = ArrayDataset(x, y), Kept()
    chosen = TrainingSettings(epochs=100, batch_size=4, seconds=200)
    times = iter([0.0, 25.0, 50.0, 75.0, 100.0])

    def killed() -> float:
        try:
            return next(times)
        except StopIteration:
            raise KeyboardInterrupt from None

    with pytest.raises(KeyboardInterrupt):
        train(engine, weights, data, chosen, 1, now=killed, keeper=kept)
    before = kept.load()
    assert before is not None
    assert before.numbers["done"] == 3, "the third step ended after more than a minute; the fourth is lost"
    ticks = iter(range(0, 10_000, 50))
    result = train(engine, weights, data, chosen, 1, now=lambda: float(next(ticks)), keeper=kept)
    assert 3 < result.steps <= 6, "75 of the 200 seconds had passed"


def test_a_diverged_training_says_so(engine: Any) -> None:
    x, y, _, weights = program.example(17, seed=3)
    with pytest.raises(Diverged, match="lower the learning rate"):
        train(engine, weights, ArrayDataset(x * np.float32(1e38), y), TrainingSettings(epochs=50), 1)


def test_settings_travel_unchanged() -> None:
    chosen = TrainingSettings(steps=3, optimiser="adam", nesterov=False, clip_norm=1.0)
    assert TrainingSettings.from_json(chosen.to_json()) == chosen


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0}, {"steps": -1}, {"batch_size": 1.5}, {"learning_rate": -1}, {"momentum": 1}, {"beta1": 1.0},
        {"beta2": "x"}, {"optimiser": "lion"}, {"nesterov": 1}, {"clip_norm": True}, {"extra": 1},
    ],
    ids=str,
)  # fmt: skip
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError, match=r"training setting|fields"):
        TrainingSettings.from_json(TrainingSettings().to_json() | wrong)


@settings(max_examples=50)
@given(samples=st.integers(1, 100), batch=st.integers(1, 30), steps=st.integers(0, 50), epochs=st.integers(1, 4))
def test_steps_are_counted_as_they_are_done(samples: int, batch: int, steps: int, epochs: int) -> None:
    from mobile_sdk.training.train import _rounds

    chosen = TrainingSettings(batch_size=batch, steps=steps, epochs=epochs)
    rounds = list(_rounds(samples, chosen, np.random.default_rng(0)))
    assert len(rounds) == chosen.count_steps(samples)
    first_pass = np.concatenate([indices for _, indices in rounds][: -(-samples // batch)])
    assert len(np.unique(first_pass)) == len(first_pass)
    assert rounds[0][0]


def test_frozen_weights_are_not_copied(engine: Any, tmp_path: Path) -> None:
    """What is not trained is read where it lies: in the mapped file."""
    from mobile_sdk.training.train import _Local
    from mobile_sdk.weights import map_weights

    _, _, _, weights = program.example()
    (tmp_path / "w").write_bytes(safetensors.dumps(weights))
    mapped = map_weights(program.LAYOUT, [tmp_path / "w"])
    local = _Local(engine, mapped, TrainingSettings())
    assert local.current["scale"] is mapped["scale"]
    assert local.current["weight"] is not mapped["weight"]
    assert not mapped["scale"].flags.owndata
