"""Batch normalisation in training mode: its statistics move on devices, are averaged, and serve evaluation."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from exporters import Task, export
from exporters.zoo import digits_data
from mobile_sdk import load_engine
from mobile_sdk.data import ArrayDataset
from mobile_sdk.errors import DataError
from mobile_sdk.training.settings import TrainingSettings
from mobile_sdk.training.train import train
from tests.exporters.export_tasks import correct, per_sample

ROUNDS, DEVICES, BATCH, RATE, MOMENTUM = 8, 4, 16, 0.05, 0.9


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(256, 10),
    )


def task_of(model: nn.Module) -> Task:
    (x, y), _ = digits_data.load()
    return Task(model, per_sample, x[:BATCH], y[:BATCH], metrics={"accuracy": correct})


def torch_accuracy() -> float:
    """One device with all the data, trained by torch for as many passes."""
    (x, y), (test_x, test_y) = digits_data.load()
    model = net()
    optimiser = torch.optim.SGD(model.parameters(), RATE, MOMENTUM)
    order = np.random.default_rng(0)
    for _ in range(ROUNDS):
        shuffled = order.permutation(len(x))[: len(x) // BATCH * BATCH].reshape(-1, BATCH)
        for index in shuffled:
            optimiser.zero_grad()
            F.cross_entropy(model(torch.from_numpy(x[index])), torch.from_numpy(y[index])).backward()
            optimiser.step()
    model.eval()
    with torch.no_grad():
        hits = model(torch.from_numpy(test_x)).argmax(1) == torch.from_numpy(test_y)
    return float(hits.float().mean())


def test_a_net_trained_from_scratch_by_devices_ends_within_three_points_of_torch(tmp_path: Path) -> None:
    task = task_of(net())
    assert task.moved == ("1.running_mean", "1.running_var", "5.running_mean", "5.running_var")
    export(task).save(tmp_path)
    engine = load_engine(tmp_path)
    weights = {n: np.array(w) for n, w in task.layout.views(task.initial_weights()).items()}
    (x, y), (test_x, test_y) = digits_data.load()
    parts = np.array_split(np.random.default_rng(0).permutation(len(x)), DEVICES)
    settings = TrainingSettings(epochs=1, batch_size=BATCH, learning_rate=RATE, momentum=MOMENTUM)
    for number in range(ROUNDS):
        updates = [
            train(engine, weights, ArrayDataset(x[part], y[part]), settings, seed=number * DEVICES + i).update
            for i, part in enumerate(parts)
        ]
        weights = {n: w + sum(update[n] for update in updates) / len(parts) for n, w in weights.items()}
    accuracy = sum(
        engine.evaluate(test_x[i : i + BATCH], test_y[i : i + BATCH], np.ones(len(test_x[i : i + BATCH]), np.float32),
                        weights)[1]["accuracy"]
        for i in range(0, len(test_x), BATCH)
    ) / len(test_x)  # fmt: skip
    engine.close()
    assert accuracy > torch_accuracy() - 0.03
    assert (weights["1.running_var"] > 0).all()


def test_a_step_moves_statistics_as_torch_does(tmp_path: Path) -> None:
    model = net()
    task = task_of(model)
    program = export(task)
    program.save(tmp_path)
    engine = load_engine(tmp_path)
    weights = {n: np.array(w) for n, w in task.layout.views(program.weights).items()}
    x, y = task.batch(BATCH)
    _, _, gradients = engine.train_step(x.numpy(), y.numpy(), np.ones(BATCH, np.float32), weights)
    engine.close()
    twin = copy.deepcopy(model)
    twin(x)
    for name in task.moved:
        np.testing.assert_allclose(
            weights[name] - gradients[name], twin.state_dict()[name].numpy(), rtol=1e-5, atol=1e-6
        )


def test_samples_that_fill_no_micro_batch_are_left_out_with_a_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    task = task_of(net())
    program = export(task)
    program.save(tmp_path)
    engine = load_engine(tmp_path)
    weights = {n: np.array(w) for n, w in task.layout.views(program.weights).items()}
    (x, y), _ = digits_data.load()
    settings = TrainingSettings(epochs=1, batch_size=BATCH, learning_rate=RATE)
    with caplog.at_level("INFO"):
        result = train(engine, weights, ArrayDataset(x[:37], y[:37]), settings, seed=0)
    assert (result.samples, result.steps) == (32, 2)
    assert "leaves out 5 of 37 samples" in caplog.text
    with pytest.raises(DataError, match="has 15 samples, and the model needs 16 at a time"):
        train(engine, weights, ArrayDataset(x[:15], y[:15]), settings, seed=0)
    with pytest.raises(DataError, match="set batch_size to a multiple of 16"):
        train(engine, weights, ArrayDataset(x, y), TrainingSettings(batch_size=24), seed=0)
    engine.close()
