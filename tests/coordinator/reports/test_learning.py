"""A run that does not learn is told from one that wavers, with the settings that are likely to be why."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from coordinator.config import Config
from coordinator.reports.learning import does_not_learn, likely_causes, stands_still
from coordinator.store.records import VersionRecord


def config(**sections: Any) -> Config:
    data = {"run": {"name": "a", "task": "m:t"}, "budgets": {"all": "1MB"}, "evaluation": {"learns_within": 5}}
    return Config.model_validate(data | sections)


def versions(*accuracies: float, losses: list[float] | None = None) -> list[VersionRecord]:
    losses = losses or [1.0 - a for a in accuracies]
    return [
        VersionRecord(n, n - 1, (), {"accuracy": a, "loss": loss}, 0.0, kind="merge" if n else "initial")
        for n, (a, loss) in enumerate(zip(accuracies, losses, strict=True))
    ]


@pytest.mark.parametrize(
    ("accuracies", "losses", "said"),
    [
        (
            [0.2, 0.1, 0.3, 0.1, 0.2, 0.1],
            None,
            "the median accuracy of the last 5 versions is 0.1000, and version 0 had",
        ),
        ([0.2, 0.3, 0.1, 0.4, 0.3, 0.4], None, ""),
        ([0.2, 0.1, 0.1, 0.1, 0.1], None, ""),
        (
            [0.2, 0.3, 0.3, 0.3, 0.3, 0.3],
            [1.8, 2.2, 2.3, 2.1, 2.5, 1.2],
            "the median loss of the last 5 versions is 2.2",
        ),
        ([0.2, 0.1, 0.1, 0.1, 0.9, 0.9, 0.9, 0.9], None, ""),
    ],
    ids=["no better", "wavering, but better", "too young", "a loss that grows", "late, but now"],
)
def test_medians_are_compared_with_version_0(accuracies: list[float], losses: list[float] | None, said: str) -> None:
    history = versions(*accuracies, losses=losses)
    sentence = does_not_learn(history, history[0], config())
    assert said in sentence
    assert bool(said) == bool(sentence)


def test_a_metric_that_should_shrink_and_a_run_without_metrics() -> None:
    history = versions(*[0.2] * 6, losses=[1.0, 0.9, 0.9, 0.9, 0.9, 0.9])
    falling = config(evaluation={"learns_within": 5, "metric": "loss", "minimise": True})
    assert does_not_learn(history, history[0], falling) == ""
    nothing = [VersionRecord(n, n - 1, (), {}, 0.0, kind="merge") for n in range(9)]
    assert does_not_learn(nothing, nothing[0], config()) == ""
    assert does_not_learn(versions(*[0.2] * 9), versions(0.2)[0], config(evaluation={"learns_within": 0})) == ""


def tier(trained: int, size: int = 1000, local: tuple[str, ...] = ()) -> Any:
    manifest = SimpleNamespace(layout=SimpleNamespace(size=size), local=local)
    return SimpleNamespace(positions=np.arange(trained), manifest=manifest)


def test_each_cause_names_the_setting_to_change() -> None:
    causes = "; ".join(
        likely_causes(
            config(training={"momentum": 0.9, "learning_rate": 0.06}), [tier(10), tier(20, local=("h",))], 7.3
        )
    )
    for words in (
        "7.3 versions old on average: set scheduling.concurrency",
        "training.momentum is 0.9: set it to 0",
        'set merge.rule = "fixed-K"',
        "only 20 of 1000 parameters are trained: raise [budgets]",
        "training.learning_rate is 0.06: try 0.02",
    ):
        assert words in causes
    assert likely_causes(config(), [tier(900)], 1.0) == ["training.learning_rate is 0.05: try 0.017"]
    few = likely_causes(config(training={"epochs": 1}), [tier(900)], 1.0, steps=2.0)
    assert few[0] == "devices do 2 steps for an update: leave training.epochs out"
    assert len(likely_causes(config(), [tier(900)], 1.0, steps=2.0)) == 1
    assert len(likely_causes(config(training={"epochs": 1}), [tier(900)], 1.0, steps=5.0)) == 1


def test_a_loss_that_does_not_move_is_told_from_one_that_grows() -> None:
    still = versions(*[0.2] * 6, losses=[2.3, 2.3, 2.31, 2.29, 2.3, 2.3])
    assert stands_still(still, still[0], config())
    grows = versions(*[0.2] * 6, losses=[2.3, 2.3, 2.4, 2.5, 2.6, 2.7])
    assert not stands_still(grows, grows[0], config())
    nothing = [VersionRecord(n, n - 1, (), {}, 0.0, kind="merge") for n in range(9)]
    assert not stands_still(nothing, nothing[0], config())
    tiny = config(training={"learning_rate": 1e-7})
    (cause,) = likely_causes(tiny, [tier(900)], 1.0, still=True)
    assert cause.startswith("training.learning_rate is 1e-07, and the loss does not move: try 1e-06, or leave")
    assert cause.endswith("and one is found")
