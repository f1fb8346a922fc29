"""The merge is the one that the run file describes, and where it says nothing the one that the documentation states."""

from __future__ import annotations

from typing import Any

import pytest

from coordinator.config import MergeSection, OptimiserSection, StalenessSection
from coordinator.merge.from_config import merger, safe_gain, server_optimiser, staleness_policy
from coordinator.merge.merger import Merger
from coordinator.merge.optimisers import ServerAdam, ServerMomentum, ServerOptimiser, ServerSgd
from coordinator.merge.staleness import (
    AgeVariance,
    Constant,
    Distance,
    Exponential,
    Hinge,
    Polynomial,
    StalenessPolicy,
)


@pytest.mark.parametrize(
    ("settings", "policy"),
    [
        ({}, Polynomial()),
        ({"policy": "constant"}, Constant()),
        ({"policy": "polynomial", "exponent": 2.0}, Polynomial(2.0)),
        ({"policy": "hinge"}, Hinge()),
        ({"policy": "hinge", "slope": 3.0, "threshold": 7}, Hinge(3.0, 7)),
        ({"policy": "exponential"}, Exponential()),
        ({"policy": "exponential", "rate": 0.3}, Exponential(0.3)),
        ({"policy": "age_variance"}, AgeVariance()),
        ({"policy": "age_variance", "exponent": 2.0, "beta": 3.0}, AgeVariance(2.0, 3.0)),
        ({"policy": "distance"}, Distance()),
        ({"policy": "distance", "scale": 3.0}, Distance(3.0)),
    ],
)
def test_a_staleness_policy_has_the_run_files_settings_and_else_its_own(
    settings: dict[str, Any], policy: StalenessPolicy
) -> None:
    assert staleness_policy(StalenessSection(**settings)) == policy


@pytest.mark.parametrize(
    ("settings", "optimiser"),
    [
        ({}, ServerSgd(0.01)),
        ({"kind": "momentum"}, ServerMomentum(0.01)),
        ({"kind": "momentum", "momentum": 0.5, "correct": False}, ServerMomentum(0.01, 0.5, correct=False)),
        ({"kind": "adam"}, ServerAdam()),
        (
            {"kind": "adam", "momentum": 0.5, "beta2": 0.7, "epsilon": 0.1, "correct": False},
            ServerAdam(0.01, 0.5, 0.7, 0.1, correct=False),
        ),
    ],
)
def test_a_server_optimiser_has_the_run_files_settings_and_else_its_own(
    settings: dict[str, Any], optimiser: ServerOptimiser
) -> None:
    assert server_optimiser(OptimiserSection(**settings), 0.01) == optimiser


def test_a_merger_has_the_run_files_settings_and_else_its_own() -> None:
    assert merger(MergeSection()) == Merger()
    section = MergeSection(
        rule="trimmed-mean",
        hostile=2,
        min_contributors=5,
        min_holders=3.0,
        min_contributors_per_coordinate=4,
        learning_rate=0.5,
        clip_norm=6.0,
        outlier_factor=7.0,
        difference="current",
        staleness=StalenessSection(policy="constant"),
    )
    assert merger(section) == Merger(Constant(), "trimmed-mean", 2, 3.0, 4, ServerSgd(0.5), 6.0, 7.0, "current")


@pytest.mark.parametrize(
    ("difference", "rate", "gain"), [("base", 0.6, 0.6), ("current", 1.0, 0.0), ("current", 1.1, 1.1)]
)
def test_merges_towards_where_devices_ended_are_safe_up_to_a_rate_of_one(
    difference: Any, rate: float, gain: float
) -> None:
    assert safe_gain(MergeSection(difference=difference, learning_rate=rate)) == gain
