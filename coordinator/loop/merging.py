"""From the run file and the buffer to a merge: what connects the arithmetic of ``merge`` to a run."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from mobile_sdk.payload import SteppedVector

from ..config import MergeSection
from ..merge.contribution import Contribution
from ..merge.defence import Defence, Judgement, Weigh
from ..merge.from_config import merger
from ..merge.merger import MergeResult
from ..merge.regions import WeightRegion
from ..merge.step_sizes import Ranges, StepSizes, Vote, is_due, wanted_ranges
from ..merge.sums import SumOnTheWay
from ..programs.tiers import Tier
from ..updates.buffer import BufferedUpdate
from ..versions.history import Versions

__all__ = ["Merging"]


class Merging:
    """
    The merges of one run.

    Args:
        section: what the operator decided.
        tiers: the run's programs.
        versions: of the run; gives the weights to merge into.

    """

    def __init__(self, section: MergeSection, tiers: Sequence[Tier], versions: Versions) -> None:
        self._merger = merger(section)
        self._versions = versions
        self._regions = {tier.name: WeightRegion(tier.positions).within(versions.trained) for tier in tiers}
        self._maximum = section.staleness.maximum
        self._defence = Defence() if section.defence else None
        # What was judged last: a merge that becomes a version is learnt from as it was judged.
        self._judged: tuple[tuple[str, ...], list[Contribution], Judgement] | None = None
        self._sizes = StepSizes()

    def void(self, updates: Sequence[BufferedUpdate]) -> list[tuple[BufferedUpdate, str]]:
        """Accepted updates that cannot be merged any more, and why: time went on while they waited."""
        reasons = [(update, self._void(update.record.version)) for update in updates]
        return [(update, reason) for update, reason in reasons if reason is not None]

    def _void(self, base: int) -> str | None:
        versions = self._versions
        if not versions.is_ancestor(base):
            return "rolled-back"
        too_old = self._maximum is not None and versions.staleness(base) > self._maximum
        if too_old or (self._merger.needs_base and not versions.has_weights(base)):
            return "stale"
        return None

    def merge(self, updates: Sequence[BufferedUpdate], working: int) -> MergeResult:
        """The next trained vector, while ``working`` devices are at work. Blocks: it is to be offloaded."""
        contributions: Sequence[Contribution]
        sums: Mapping[bytes, SumOnTheWay] = {}
        if self._defence is None:
            contributions = self._contributions(updates)
        else:
            judgement = self._judge(self._defence, updates, working, self._merger.weigh)[1]
            contributions, sums = judgement.contributions, judgement.sums
        versions = self._versions
        return self._merger(versions.trained.gather(versions.vector), versions.state, contributions, versions.at, sums)

    def learn(self, updates: Sequence[BufferedUpdate], working: int) -> Mapping[str, tuple[str, str]]:
        """
        These updates are about to become a version: remember what is usual. Blocks.

        Returns:
            Devices that were out of line too often, and why: a word and a sentence.

        """
        if self._defence is None:
            return {}
        names = tuple(update.record.assignment for update in updates)
        if self._judged is not None and self._judged[0] == names:
            _, contributions, judgement = self._judged
        else:
            contributions, judgement = self._judge(self._defence, updates, working)
        self._judged = None  # what is usual changes now
        return self._defence.learn(contributions, judgement)

    def _judge(
        self, defence: Defence, updates: Sequence[BufferedUpdate], working: int, weigh: Weigh | None = None
    ) -> tuple[list[Contribution], Judgement]:
        contributions = self._contributions(updates)
        judgement = defence.judge(contributions, working, weigh)
        names = tuple(update.record.assignment for update in updates)
        self._judged = names, contributions, dataclasses.replace(judgement, sums={})  # as large as the model
        return contributions, judgement

    def ranges(self, updates: Sequence[BufferedUpdate]) -> Mapping[str, Ranges]:
        """
        What the steps of updates of the next version follow from, by tier. Blocks.

        Args:
            updates: that are about to become that version.

        """
        versions = self._versions
        self._sizes.merged(
            Vote(update.record.tier, update.record.device, wanted_ranges(update.delta))
            for update in updates
            if isinstance(update.delta, SteppedVector)
        )
        now = versions.ranges(versions.newest)
        return self._sizes.next(now) if is_due(versions.merges + 1) else now

    def _contributions(self, updates: Sequence[BufferedUpdate]) -> list[Contribution]:
        return [
            Contribution(
                id=update.record.assignment,
                region=self._regions[update.record.tier],
                delta=update.delta,
                examples=float(update.record.report["samples"]),
                staleness=self._versions.staleness(update.record.version),
                base=update.record.version,
                device=update.record.device,
                largest=update.largest,
                length=update.length,
            )
            for update in updates
        ]
