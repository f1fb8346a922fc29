"""Gains follow from the baseline: a better one raises the target, and is compared on its own seeds."""

from __future__ import annotations

import math
from typing import Any

import pytest

from benchmarks.paper.headline import trials, trials_markdown
from benchmarks.paper.report import baselines, replace_table


def run(seed: int, *accuracies: float, pace: float = 1.0) -> dict[str, Any]:
    """One evaluation every ``pace`` seconds, 100 bytes each."""
    curve = [
        {
            "seconds": pace * at,
            "trips": at,
            "bytes_up": 60 * at,
            "bytes_down": 40 * at,
            "metrics": {"accuracy": accuracy},
        }
        for at, accuracy in enumerate(accuracies, 1)
    ]
    facts = {"tiers": [{"name": "full", "measured_bytes": 10}], "staleness": {}, "classes": {}, "step_seconds": {}}
    last = curve[-1]
    return facts | {
        "run": {"seed": seed},
        "curve": curve,
        "trips": 10,
        "trainings": 10,
        **{key: last[key] for key in ("seconds", "bytes_up", "bytes_down")},
    }


def test_a_better_baseline_has_a_higher_target_and_gains_of_its_own_seeds() -> None:
    ours = [run(1, 0.1, *[0.5] * 9, pace=0.1), run(2, *[0.1] * 9, 0.2, pace=0.1)]
    by_rate = {0.1: [run(1, 0.1, 0.3, *[0.4] * 8)], 0.05: [run(1, 0.1, 0.2, 0.3, 0.4, *[0.5] * 6)]}
    better, worse = baselines({"ours": ours}, by_rate, 0.95)
    assert (better["learning_rate"], worse["learning_rate"]) == (0.05, 0.1)
    assert (better["target"], worse["target"]) == (pytest.approx(0.475), pytest.approx(0.38))
    assert better["gain"]["ours"]["time"] == pytest.approx(6 / 0.3), (
        "the second seed, which reaches nothing, is not in it"
    )
    assert worse["gain"]["ours"]["time"] == pytest.approx(4 / 0.3)


def test_what_never_reaches_the_target_is_said_not_to() -> None:
    (row,) = baselines({"ours": [run(1, *[0.3] * 10)]}, {0.1: [run(1, *[0.4] * 10)]}, 0.95)
    assert row["gain"]["ours"]["points_of_accuracy"] == pytest.approx(-10)
    assert row["gain"]["ours"]["time"] is None


@pytest.mark.parametrize("best", [0.025, 0.05, 0.1, 0.2, 0.8])
def test_trials_go_on_until_the_best_rate_is_not_at_the_edge(best: float) -> None:
    def simulated(algorithm: str, rate: float, seed: int, task: str) -> dict[str, Any]:
        assert (algorithm, seed, task) == ("ours", 101, "from_pretrained_tuning")
        return run(seed, *[0.5 - abs(math.log2(rate / best)) / 20] * 5)

    scores = trials(simulated, "ours", 101)
    assert max(scores, key=scores.__getitem__) == pytest.approx(best)
    assert min(scores) < best < max(scores)
    assert {0.05, 0.1, 0.2} <= scores.keys()
    assert trials_markdown({"ours": scores}).count("**0.500**") == 1


def test_a_table_takes_the_place_of_the_one_between_its_marks(tmp_path: Any) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- a -->\nold\n<!-- /a -->\n<!-- b -->\n<!-- /b -->\nafter\n")
    replace_table(page, "a", "new")
    assert page.read_text() == "before\n<!-- a -->\nnew\n<!-- /a -->\n<!-- b -->\n<!-- /b -->\nafter\n"
