"""What metrics decide: the best version, the end, and when a merge is undone."""

from __future__ import annotations

import math
from typing import Any

import pytest

from coordinator.config import EvaluationSection
from coordinator.evaluation.metric_watch import MetricWatch
from coordinator.store.records import VersionRecord


def version(number: int, accuracy: float | None, parent: int | None = None, kind: Any = "merge") -> VersionRecord:
    metrics = {} if accuracy is None else {"accuracy": accuracy, "loss": 1 - accuracy}
    return VersionRecord(number, number - 1 if parent is None else parent, (), metrics, 0.0, kind=kind)


def watch(*accuracies: float | None, **section: Any) -> MetricWatch:
    versions = [version(n, a, kind="merge" if n else "initial") for n, a in enumerate(accuracies)]
    return MetricWatch(EvaluationSection(**section), versions)


def test_the_best_version_is_the_oldest_of_equals() -> None:
    assert watch(0.1, 0.5, 0.4, 0.5).best == 1
    assert watch(0.1, 0.5, 0.4, metric="loss", minimise=True).best == 1
    assert watch(None, None).best is None


def test_a_version_that_was_rolled_back_is_never_the_best() -> None:
    seen = watch(0.1, 0.5, 0.4, 0.8, 0.7)
    assert seen.best == 3
    seen.see(version(5, 0.4, parent=2, kind="rollback"))
    assert seen.best == 1
    seen.see(version(6, 0.6))
    assert seen.best == 6
    seen.see(version(7, 0.1, parent=0, kind="rollback"))
    assert seen.best == 0


def test_the_least_loss_is_that_of_a_version_that_was_not_rolled_back() -> None:
    seen = watch(0.1, 0.5, 0.8, None, 0.7)
    assert seen.least_loss == pytest.approx(0.2)
    seen.see(version(5, 0.5, parent=1, kind="rollback"))
    assert seen.least_loss == pytest.approx(0.5)
    assert watch(None).least_loss == math.inf


def test_versions_that_are_read_again_have_the_same_best() -> None:
    versions = [version(0, 0.1, kind="initial"), version(1, 0.9), version(2, 0.1, parent=0, kind="rollback")]
    assert MetricWatch(EvaluationSection(), [*versions, version(3, 0.2)]).best == 3


def test_a_run_that_gets_no_better_ends() -> None:
    assert watch(0.1, 0.5, 0.4, 0.5, patience=3).exhausted() is None
    reason = watch(0.1, 0.5, 0.4, 0.5, 0.3, patience=3).exhausted()
    assert reason == "accuracy has not become better than 0.5000 of version 1 for 3 versions"
    assert watch(0.1, *[0.0] * 100).exhausted() is None  # only where it is asked for
    assert watch(*[None] * 100, patience=3).exhausted() is None


def test_a_goal_is_reached_from_the_side_that_is_better() -> None:
    error = watch(metric="mae", minimise=True)
    assert error.reached(2.0, {"mae": 2.5, "accuracy": 1.0}) is None
    assert error.reached(2.0, {"mae": 1.96}) == "the mae 1.9600 has reached 2"
    assert error.reached(2.0, {"mae": float("nan")}) is None
    assert error.reached(2.0, {}) is None
    assert watch().reached(0.9, {"accuracy": 0.8}) is None
    assert watch().reached(0.9, {"accuracy": 0.9}) == "the accuracy 0.9000 has reached 0.9"


def test_a_merge_that_hurts_is_told_apart_from_one_that_wavers() -> None:
    guard = watch(0.1, 0.5, guard=0.1)
    for accuracy, hurts in ((0.45, False), (0.39, True), (0.9, False)):
        assert (guard.harm(version(2, accuracy)) is not None) == hurts
    assert "from 0.5000 to 0.3900 with version 2; 0.1 is allowed" in str(guard.harm(version(2, 0.39)))
    assert "no number" in str(guard.harm(version(2, None)))
    assert watch(0.1, 0.5).harm(version(2, 0.0)) is None


def test_after_three_rollbacks_in_a_row_there_is_no_hope() -> None:
    guard = watch(0.5, guard=0.1)
    for number in range(1, 7, 2):
        assert not guard.hopeless
        guard.see(version(number, 0.1))
        guard.see(version(number + 1, 0.5, parent=number - 1, kind="rollback"))
    assert guard.hopeless
    guard.give_up()
    assert not guard.hopeless


def test_a_good_merge_ends_a_row_of_rollbacks() -> None:
    guard = watch(0.5, guard=0.1)
    guard.see(version(1, 0.1))
    guard.see(version(2, 0.5, parent=0, kind="rollback"))
    guard.see(version(3, 0.55))
    for number in range(4, 8, 2):
        guard.see(version(number, 0.1))
        guard.see(version(number + 1, 0.55, parent=number - 1, kind="rollback"))
    assert not guard.hopeless
