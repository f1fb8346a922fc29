"""The knapsack is exact, evolution never leaves the budget, the prediction learns from measurements."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporters.search.evolution import evolve
from exporters.search.knapsack import best_levels
from exporters.search.memory_model import Costs, MemoryModel
from exporters.space import FROZEN, LEVELS, Space
from tests.exporters.export_tasks import tiny_task

_N = len(LEVELS)


@st.composite
def problems(draw: Any) -> Any:
    """Gains, costs in whole steps of the grid, levels to choose from, and a budget."""
    layers = draw(st.integers(1, 4))
    whole = st.integers(0, 9)
    gains = np.array(
        draw(st.lists(st.lists(st.integers(-3, 9), min_size=_N, max_size=_N), min_size=layers, max_size=layers)), float
    )
    gains[:, FROZEN] = 0
    costs = np.array(draw(st.lists(st.lists(whole, min_size=_N, max_size=_N), min_size=layers, max_size=layers)), float)
    costs[:, FROZEN] = 0
    base = np.array(draw(st.lists(whole, min_size=layers, max_size=layers)), float)
    allowed = [sorted(draw(st.sets(st.integers(0, _N - 1), min_size=1))) for _ in range(layers)]
    return gains, Costs(base, costs), allowed, draw(st.integers(1, 30))


def _exhaustive(gains: Any, costs: Any, allowed: Any, budget: Any) -> Any:
    best = None
    for levels in itertools.product(*allowed):
        if costs.of(np.array([levels]))[0] <= budget:
            gain = gains[np.arange(len(levels)), list(levels)].sum()
            best = gain if best is None else max(best, gain)
    return best


@given(problems())
@settings(max_examples=150, deadline=None)
def test_the_knapsack_finds_what_trying_everything_finds(problem: Any) -> None:
    gains, costs, allowed, budget = problem
    levels = best_levels(gains, costs, allowed, budget, steps=budget)
    expected = _exhaustive(gains, costs, allowed, budget)
    if expected is None:
        assert levels is None
        return
    assert levels is not None
    assert all(level in choice for level, choice in zip(levels, allowed, strict=True))
    assert costs.of(np.array([levels]))[0] <= budget
    assert gains[np.arange(len(levels)), list(levels)].sum() == expected


@given(problems(), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_evolution_stays_within_the_budget_and_does_not_lose_what_it_began_with(problem: Any, seed: int) -> None:
    gains, costs, allowed, budget = problem
    start = best_levels(gains, costs, allowed, budget, steps=budget)
    starts = [] if start is None else [start]
    found = evolve(gains, costs, allowed, budget, seed=seed, starts=starts, population=16, generations=5)
    assert len(set(found)) == len(found)
    for levels in found:
        assert costs.of(np.array([levels]))[0] <= budget
        assert all(level in choice for level, choice in zip(levels, allowed, strict=True))
    if start is not None:
        worth = [gains[np.arange(len(p)), list(p)].sum() for p in (found[0], start)]
        assert worth[0] == worth[1]


def test_evolution_alone_reaches_the_knapsack() -> None:
    random = np.random.default_rng(0)
    gains = np.sort(random.uniform(size=(12, _N)), axis=1)
    layer = np.sort(random.uniform(size=(12, _N)), axis=1) * 100
    gains[:, FROZEN] = layer[:, FROZEN] = 0
    costs = Costs(np.linspace(100, 10, 12), layer)
    allowed = [list(range(_N))] * 12
    best = best_levels(gains, costs, allowed, 400)
    found = evolve(gains, costs, allowed, 400, seed=1)
    assert best is not None
    worth = [gains[np.arange(12), list(p)].sum() for p in (found[0], best)]
    assert worth[0] >= 0.97 * worth[1]
    assert found == evolve(gains, costs, allowed, 400, seed=1)


@pytest.fixture(scope="module")
def space() -> Space:
    return Space(tiny_task())


def test_measurements_correct_the_prediction(space: Space) -> None:
    """A runtime that takes 1.6 times what was guessed: plans that were not measured are predicted with it."""
    guess, model = MemoryModel(space), MemoryModel(space)
    for levels in [(0, 5), (1, 3), (5, 5)]:
        model.learn(levels, 16, int(1.6 * guess.predict(levels, 16)))
    for levels in [(0, 1), (3, 3), (5, 2)]:
        assert model.predict(levels, 16) == pytest.approx(1.6 * guess.predict(levels, 16), rel=0.1)


def test_the_knapsacks_costs_are_the_prediction(space: Space) -> None:
    model = MemoryModel(space)
    model.learn((0, 5), 4, 700_000)
    costs = model.costs(8)
    plans = [levels for levels in itertools.product(*[layer.levels for layer in space.layers]) if any(levels)]
    predicted = [model.predict(levels, 8) for levels in plans]
    assert costs.of(np.array(plans)) == pytest.approx(predicted, abs=1)
