"""Server optimisers, against their papers' formulas."""

from __future__ import annotations

import numpy as np
import pytest

from coordinator.merge.optimisers import ServerAdam, ServerMomentum, ServerSgd, State, corrected
from coordinator.merge.regions import MIN_RUN, WeightRegion
from coordinator.merge.rules import Direction
from coordinator.merge.sums import BLOCK

WEIGHTS = np.zeros(4, np.float32)
EVERYWHERE = WeightRegion(np.arange(4))


def direction(*values: float) -> Direction:
    return Direction(EVERYWHERE, np.array(values))


def test_sgd_moves_by_the_learning_rate() -> None:
    moved, state = ServerSgd(0.5).apply(WEIGHTS, {}, direction(1, 2, 3, 4), 0.0)
    assert moved.tolist() == [0.5, 1.0, 1.5, 2.0]
    assert state == {}


@pytest.mark.parametrize(
    "optimiser", [ServerSgd(0.5), ServerMomentum(0.5, 0.0), ServerMomentum(1.0, 0.5, correct=False)]
)
def test_coordinates_in_long_runs_and_alone_between_them_move_alike(optimiser: ServerSgd | ServerMomentum) -> None:
    places = [0, 2, *range(10, 10 + MIN_RUN), 20_000, *range(30_000, 30_001 + BLOCK), 30_003 + BLOCK]
    values = np.random.default_rng(3).standard_normal(len(places))
    weights = np.zeros(places[-1] + 2, np.float32)
    moved, state = optimiser.apply(weights, {}, Direction(WeightRegion(np.array(places)), values), 0.0)
    expected = np.zeros_like(weights)
    expected[places] = 0.5 * values
    assert moved.tobytes() == expected.tobytes()
    if isinstance(optimiser, ServerMomentum):
        mean = np.zeros_like(weights)
        mean[places] = (1.0 - optimiser.momentum) * values
        assert state["mean"].tobytes() == mean.tobytes()


def test_momentum_is_a_moving_average_of_directions() -> None:
    optimiser = ServerMomentum(1.0, 0.5)
    weights, state = optimiser.apply(WEIGHTS, {}, direction(1, 0, 0, 0), 0.0)
    assert weights[0] == 0.5
    weights, state = optimiser.apply(weights, state, direction(0, 0, 0, 0), 0.0)
    assert weights[0] == 0.75
    assert state["mean"].tolist() == [0.25, 0, 0, 0]


def test_adam_is_fedadams_algorithm() -> None:
    rate, b, b2, epsilon = 0.1, 0.9, 0.99, 1e-3
    d1, d2 = np.array([1.0, -2.0, 0.5, 0.0]), np.array([0.5, 1.0, 0.0, 3.0])
    w, m, v = np.zeros(4), np.zeros(4), np.full(4, epsilon**2)
    weights: np.ndarray[tuple[int], np.dtype[np.float32]] = WEIGHTS
    state: State = {}
    for d in (d1, d2):
        m = b * m + (1 - b) * d
        v = b2 * v + (1 - b2) * d**2
        w = w + rate * m / (np.sqrt(v) + epsilon)
        weights, state = ServerAdam(rate, b, b2, epsilon).apply(weights, state, Direction(EVERYWHERE, d), 0.0)
    assert np.allclose(weights, w, rtol=1e-5)


@pytest.mark.parametrize(("staleness", "explicit"), [(0, 0.9), (1, 8 / 9), (4, 5 / 6), (9, 0.0), (50, 0.0)])
def test_momentum_gives_way_to_what_asynchrony_brings(staleness: float, explicit: float) -> None:
    assert corrected(0.9, staleness) == pytest.approx(explicit)


def test_the_correction_keeps_a_stale_quadratic_from_oscillating() -> None:
    """Descent on w^2 / 2 with gradients 8 versions old: momentum as given diverges, corrected it settles."""

    def worst(optimiser: ServerMomentum) -> float:
        region = WeightRegion(np.arange(1))
        weights = np.ones(1, np.float32)
        state: State = {}
        past = [weights] * 9
        for _ in range(300):
            weights, state = optimiser.apply(weights, state, Direction(region, -past[0].astype(np.float64)), 8.0)
            past = [*past[1:], weights]
        return float(max(abs(w[0]) for w in past))

    assert worst(ServerMomentum(0.15, 0.9, correct=False)) > 1.0
    assert worst(ServerMomentum(0.15, 0.9)) < 0.1


def test_the_step_is_as_long_with_momentum_as_without() -> None:
    optimiser = ServerMomentum(1.0, 0.9)
    weights = WEIGHTS
    state: State = {}
    for _ in range(200):
        before = weights
        weights, state = optimiser.apply(weights, state, direction(1, 1, 1, 1), 2.0)
    assert np.allclose(weights - before, 1.0, rtol=1e-4)
