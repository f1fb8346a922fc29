"""
Whether a run learns at all, and if not, which settings to look at.

Metrics waver from version to version, so medians are compared with version 0 and not single versions.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from mobile_sdk.sizes import format_count

from ..config import Config
from ..programs.tiers import Tier
from ..store.records import VersionRecord

__all__ = ["PAGE", "does_not_learn", "likely_causes", "stands_still"]

# Updates that are older than this many versions on average pull the model back to where it was.
OLD = 4.0
# Below this share of the exchanged parameters, what is frozen decides what can be learned.
LITTLE = 0.10
# A loss that stays within this share of version 0's has not moved: training changes next to nothing.
STILL = 0.01
# Fewer steps for an update than this move the model too little, whatever the rate.
FEW_STEPS = 5
PAGE = "docs/how-to/not-learning.md"


def does_not_learn(versions: Sequence[VersionRecord], first: VersionRecord, config: Config) -> str:
    """
    A sentence on what has not become better since version 0; empty if the run learns or is too young to tell.

    Args:
        versions: of the run, oldest first.
        first: version 0.
        config: ``evaluation.learns_within`` merges are looked at, and the watched metric.

    """
    section = config.evaluation
    merges = [version for version in versions if version.kind == "merge"]
    if section.learns_within == 0 or len(merges) < section.learns_within:
        return ""
    recent = merges[-section.learns_within :]
    for name, minimise in ((section.metric, section.minimise), ("loss", True)):
        values = [version.metrics[name] for version in recent if name in version.metrics]
        before = first.metrics.get(name)
        if before is None or len(values) < len(recent):
            continue
        now = statistics.median(values)
        if now >= before if minimise else now <= before:
            return (
                f"the run does not learn: the median {name} of the last {len(recent)} versions is {now:.4f}, and "
                f"version 0 had {before:.4f}"
            )
    return ""


def stands_still(versions: Sequence[VersionRecord], first: VersionRecord, config: Config) -> bool:
    """Whether no loss of the merges that :func:`does_not_learn` looks at is more than 1 % from version 0's."""
    merges = [version for version in versions if version.kind == "merge"][-config.evaluation.learns_within :]
    before = first.metrics.get("loss")
    losses = [version.metrics["loss"] for version in merges if "loss" in version.metrics]
    return before is not None and bool(losses) and all(abs(loss - before) <= STILL * abs(before) for loss in losses)


def likely_causes(
    config: Config,
    tiers: Sequence[Tier],
    mean_staleness: float,
    *,
    still: bool = False,
    steps: float | None = None,
) -> list[str]:
    """
    What may be why, each with the setting to change; the likeliest first.

    Args:
        config: the run file.
        tiers: of the run.
        mean_staleness: of merged updates, in versions.
        still: whether the loss has not moved at all: then the rate is the first to look at, and too small.
        steps: that devices do for an update, the median one.

    """
    rate = config.training.settings.learning_rate
    causes = []
    if steps is not None and steps < FEW_STEPS and config.training.epochs != "auto":
        causes.append(f"devices do {format_count(round(steps), 'step')} for an update: leave training.epochs out")
    if still:
        causes.append(
            f"training.learning_rate is {rate:g}, and the loss does not move: try {rate * 10:.2g}, or leave it out if "
            "the run file sets it, and one is found"
        )
    trained = max(len(tier.positions) for tier in tiers)
    if mean_staleness > OLD:
        causes.append(
            f"updates are {mean_staleness:.1f} versions old on average: set scheduling.concurrency to about twice "
            "merge.buffer, or a larger merge.buffer"
        )
    if config.training.momentum > 0:
        causes.append(f"training.momentum is {config.training.momentum:g}: set it to 0")
    if len(tiers) > 1 and config.merge.rule == "holders":
        causes.append('tiers train different parameters: set merge.rule = "fixed-K"')
    if trained < LITTLE * tiers[0].manifest.layout.size:
        causes.append(f"only {trained} of {tiers[0].manifest.layout.size} parameters are trained: raise [budgets]")
    if tiers[0].manifest.local:
        causes.append("devices keep a part of the model, which the coordinator evaluates untrained: see their metrics")
    if not still:
        causes.append(f"training.learning_rate is {rate:g}: try {rate / 3:.2g}")
    return causes
