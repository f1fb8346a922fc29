"""Gains follow from the baseline: a better one raises the target, and is compared on its own seeds."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.paper.report import baselines, baselines_markdown, replace_table


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
    text = baselines_markdown([better, worse])
    assert "| 0.05 | 1 | 0.500 | 0.475 | +0.0 points, time 20.0x, payload 2.0x |" in text


def test_what_never_reaches_the_target_is_said_not_to() -> None:
    rows = baselines({"ours": [run(1, *[0.3] * 10)]}, {0.1: [run(1, *[0.4] * 10)]}, 0.95)
    assert "-10.0 points, not reached" in baselines_markdown(rows)


def test_a_table_takes_the_place_of_the_one_between_its_marks(tmp_path: Any) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- a -->\nold\n<!-- /a -->\n<!-- b -->\n<!-- /b -->\nafter\n")
    replace_table(page, "a", "new")
    assert page.read_text() == "before\n<!-- a -->\nnew\n<!-- /a -->\n<!-- b -->\n<!-- /b -->\nafter\n"
