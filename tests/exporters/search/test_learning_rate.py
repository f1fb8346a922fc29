"""A learning rate for whoever sets none."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from exporters import Task
from exporters.search.learning_rate import find_learning_rate
from exporters.zoo.examples import cross_entropy


def task(scale: float = 1.0, width: int = 8) -> tuple[Task, tuple[torch.Tensor, torch.Tensor]]:
    """Two classes that a small net tells apart; inputs of any scale."""
    torch.manual_seed(0)
    x = torch.randn(400, 5) * scale
    y = (x[:, 0] * x[:, 1] > 0).long()
    model = nn.Sequential(nn.Linear(5, width), nn.ReLU(), nn.Linear(width, 2))
    return Task(model, cross_entropy, x[:16], y[:16], name="quadrants"), (x, y)


def fit(own: Task, samples: tuple[torch.Tensor, torch.Tensor], rate: float) -> float:
    """The mean loss after some hundred steps, each on all samples."""
    model = copy.deepcopy(own.model)
    for _ in range(300):
        loss = own.loss(model(samples[0]), samples[1]).mean()
        model.zero_grad()
        loss.backward()
        with torch.no_grad():
            for parameter in model.parameters():
                assert parameter.grad is not None
                parameter.sub_(rate * parameter.grad)
    return own.loss(model(samples[0]), samples[1]).mean().item()


@pytest.mark.parametrize("scale", [0.2, 1.0, 8.0])
def test_the_rate_follows_the_scale_of_the_task(scale: float) -> None:
    own, samples = task(scale)
    before = copy.deepcopy(own.model.state_dict())
    rate = find_learning_rate(own, samples, batch_size=16)
    assert rate is not None
    assert rate == find_learning_rate(own, samples, batch_size=16), "the same each time"
    assert fit(own, samples, rate) < 0.8 * fit(own, samples, rate / 32)
    assert all(torch.equal(tensor, before[name]) for name, tensor in own.model.state_dict().items())


def test_larger_inputs_want_smaller_rates() -> None:
    rates = [find_learning_rate(*task(scale), batch_size=16) for scale in (0.2, 8.0)]
    assert rates[0] is not None
    assert rates[1] is not None
    assert rates[0] > 2 * rates[1]


def test_targets_that_nobody_has_scaled_get_a_rate_that_fits_them() -> None:
    torch.manual_seed(0)
    x = torch.randn(200, 5)
    y = 150 + 80 * x[:, :1]
    model = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 1))
    own = Task(model, lambda output, target: ((output - target) ** 2).mean(1), x[:16], y[:16], name="hundreds")
    rate = find_learning_rate(own, (x, y), batch_size=16)
    assert rate is not None
    assert rate < 0.0125 / 2, "smaller than any of the grid"
    assert fit(own, (x, y), rate) < 0.1 * 80**2


def test_a_rate_at_which_a_net_learns_a_constant_fits_nothing() -> None:
    """With small inputs and large targets the mean is learned first, at rates at which every hidden unit dies."""
    torch.manual_seed(0)
    x = 0.05 * torch.randn(100, 10)
    y = 150 + 800 * x[:, :1] + 600 * x[:, 1:2].abs()
    model = nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 1))
    own = Task(model, lambda output, y: ((output - y) ** 2).squeeze(1), x[:8], y[:8])
    rate = find_learning_rate(own, (x, y), batch_size=8)
    assert rate is not None
    assert fit(own, (x, y), rate) < 0.9 * y.var().item()


def test_samples_that_are_all_the_same_are_fitted_by_a_constant() -> None:
    x, y = torch.zeros(100, 10), torch.full((100, 1), 3.0)
    own = Task(nn.Linear(10, 1), lambda output, y: ((output - y) ** 2).squeeze(1), x[:8], y[:8])
    assert find_learning_rate(own, (x, y), batch_size=8) is not None


def test_adam_has_rates_of_its_own() -> None:
    rate = find_learning_rate(*task(), batch_size=16, optimiser="adam")
    assert rate is not None
    assert rate < 0.02


def test_nothing_is_said_of_few_samples_large_models_and_what_cannot_be_learnt() -> None:
    own, (x, y) = task()
    assert find_learning_rate(own, (x[:20], y[:20]), batch_size=16) is None
    large, samples = task(width=6_000_000)
    assert find_learning_rate(large, samples, batch_size=16) is None
    constant = Task(own.model, lambda output, target: output.sum(1) * 0, x[:16], y[:16], name="constant")
    assert find_learning_rate(constant, (x, y), batch_size=16) is None


class OfEight(nn.Module):
    """Takes eight samples, and no other number."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(5, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x.reshape(8, 5))


def test_a_model_that_takes_no_other_batch_lets_the_run_begin_without_a_rate() -> None:
    _, (x, y) = task()
    own = Task(OfEight(), cross_entropy, x[:8], y[:8], name="of eight")
    assert find_learning_rate(own, (x, y), batch_size=16) is None
