"""A run that trains next to nothing, or has a tier that does, is warned of."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from coordinator.programs.plan_checks import check_tiers
from coordinator.programs.tiers import Tier
from mobile_sdk.layout import Layout, Parameter, Subset

from ..small_run import make_run

LAYOUT = Layout([Parameter("body", (900,)), Parameter("head", (99,)), Parameter("bias", (1,))])


def tiers(folder: Path, *parts: list[str]) -> list[Tier]:
    """Tiers of which each trains the parameters of these names."""
    run = make_run(folder)
    run.store.close()
    small = run.tiers[0]
    made = []
    for number, names in enumerate(parts):
        subset = Subset.whole(LAYOUT, names)
        manifest = dataclasses.replace(small.manifest, layout=LAYOUT, subset=subset)
        record = dataclasses.replace(small.record, name=f"tier-{number}")
        made.append(dataclasses.replace(small, manifest=manifest, record=record, positions=subset.positions()))
    return made


def sentences(made: list[Tier]) -> list[str]:
    return [finding.sentence for finding in check_tiers(made) if finding.level == "warning"]


def test_a_run_that_trains_the_head_of_an_untrained_net_is_warned_of(tmp_path: Path) -> None:
    (sentence,) = sentences(tiers(tmp_path, ["bias"], ["head"])[1:])
    assert "the run trains 99 of 1000 parameters (10%); the others stay as the task gives them" in sentence
    assert "raise the largest of [budgets]" in sentence
    assert sentences(tiers(tmp_path, ["head", "bias"])) == [], "a tenth is enough"


def test_a_tier_that_contributes_next_to_nothing_is_named(tmp_path: Path) -> None:
    (sentence,) = sentences(tiers(tmp_path, ["bias"], ["body", "head", "bias"]))
    assert "devices of the tier tier-0 train 1 of the 1000 parameters that are exchanged" in sentence
    assert "raise its budget, or leave the tier out" in sentence


def test_tiers_that_all_contribute_are_fine(tmp_path: Path) -> None:
    made = tiers(tmp_path, ["head"], ["body", "head", "bias"])
    assert sentences(made) == []
    assert len(np.unique(np.concatenate([tier.positions for tier in made]))) == 1000
