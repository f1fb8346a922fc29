"""The settings in ``docs`` are good run files, and mean what is said beside them."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import numpy as np
import pytest

from coordinator.config import Config, parse_config
from coordinator.merge.contribution import Contribution
from coordinator.merge.from_config import merger
from coordinator.merge.regions import WeightRegion

DOCS = Path(__file__).parents[3] / "docs" / "explanation"
BASE = {"run": {"name": "digits", "task": "tasks:digits"}, "budgets": {"all": "1MB"}}


def blocks(name: str) -> list[Config]:
    """The TOML in a page, each as a run file."""
    found = re.findall(r"```toml\n(.*?)```", (DOCS / name).read_text(), re.DOTALL)
    return [parse_config(BASE | tomllib.loads(text), Path()) for text in found]


def cohorts() -> list[Config]:
    """The examples of rounds: FedAvg, and the same with over-selection."""
    return [config for config in blocks("merging.md") if config.scheduling.cohort]


@pytest.mark.parametrize("name", ["merging.md", "state.md"])
def test_every_example_is_a_run_file(name: str) -> None:
    assert blocks(name)


def test_fedavg_is_the_mean_by_examples_of_a_cohort_that_waits() -> None:
    config = cohorts()[0]
    assert config.scheduling.cohort == config.merge.buffer
    assert not config.scheduling.repeat
    region = WeightRegion(np.arange(3))
    random = np.random.default_rng(1)
    deltas = [random.standard_normal(3).astype(np.float32) for _ in range(4)]
    counts = [10.0, 20.0, 30.0, 40.0]
    given = [Contribution(f"a{n}", region, d, c) for n, (d, c) in enumerate(zip(deltas, counts, strict=True))]
    weights = np.ones(3, np.float32)
    moved = merger(config.merge)(weights, {}, given, lambda version: weights).weights
    assert np.allclose(moved, 1 + np.average(deltas, axis=0, weights=counts), rtol=1e-6)


def test_over_selection_takes_the_first_and_refuses_the_rest() -> None:
    config = cohorts()[1]
    assert config.scheduling.cohort > config.merge.smallest
    assert config.merge.staleness.maximum == 0
