"""
Versions made anew from the updates that they were merged from, and compared, hash by hash.

Merging is exact: sums are integers, so the same updates give the same bytes on every processor, in every order of
arrival. A version that comes out otherwise was not made of what is written down.
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import numpy as np

from mobile_sdk import safetensors
from mobile_sdk.layout import Vector

from ..errors import StoreError, UpdateRefused
from ..merge.contribution import Contribution
from ..merge.from_config import merger
from ..merge.optimisers import State
from ..merge.regions import WeightRegion
from ..programs.tiers import Tier
from ..store.interface import Store
from ..store.records import VersionRecord
from ..updates.validation import parse_update
from ..versions.files import MASTER, OPTIMISER, trained_part
from ..versions.history import Versions
from .kept_merges import KeptMerge, KeptMerges, KeptUpdate

__all__ = ["Verdict", "replay"]

# Versions whose weights stay in memory: the next ones are based on them.
CACHED = 8

Word = Literal["equal", "differs", "unknown"]


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What came of one version; ``why`` is a sentence where it is not ``equal``."""

    version: int
    word: Word
    why: str = ""


def replay(store: Store, kept: KeptMerges, tiers: Sequence[Tier]) -> Iterator[Verdict]:
    """
    Make every version but the first anew.

    Args:
        store: of the run, which is not served meanwhile.
        kept: what its versions were made of.
        tiers: the run's programs.

    """
    records = store.versions.all()
    versions = Versions(
        store.versions, store.artifacts, tiers[0].manifest.layout, [tier.manifest.subset for tier in tiers]
    )
    known = _Known(versions, {record.version: record for record in records})
    there = set(kept.versions())
    merging = _Replay(versions, known, {tier.name: tier for tier in tiers})
    for record in records:
        if record.kind != "merge":
            continue
        if record.version not in there:
            yield Verdict(record.version, "unknown", "its updates were not kept: set merge.keep_updates")
            continue
        try:
            yield merging.compare(record, kept.read(record.version))
        except StoreError as error:
            yield Verdict(record.version, "unknown", str(error))


class _Known:
    """Weights and optimiser states of versions: made anew, or of the store."""

    def __init__(self, versions: Versions, records: Mapping[int, VersionRecord]) -> None:
        self._versions = versions
        self._records = records
        self._made: collections.OrderedDict[int, tuple[Vector, State]] = collections.OrderedDict()

    def add(self, version: int, vector: Vector, state: State) -> None:
        self._made[version] = vector, state
        if len(self._made) > CACHED:
            self._made.popitem(last=False)

    def get(self, version: int) -> tuple[Vector, State]:
        """Raises :exc:`StoreError` if its files were pruned."""
        record = self._records[version]
        while record.kind == "rollback" and record.version not in self._made and record.pruned:
            record = self._records[record.parent]  # it repeats that one
        if record.version not in self._made:
            self.add(record.version, self._versions.load(record), self._versions.load_state(record))
        return self._made[record.version]

    def trained(self, version: int) -> Vector:
        return self._versions.trained.gather(self.get(version)[0])


class _Replay:
    def __init__(self, versions: Versions, known: _Known, tiers: Mapping[str, Tier]) -> None:
        self._versions = versions
        self._known = known
        self._tiers = tiers
        self._regions = {name: WeightRegion(tier.positions).within(versions.trained) for name, tier in tiers.items()}

    def compare(self, record: VersionRecord, merge: KeptMerge) -> Verdict:
        """Raises :exc:`StoreError` if what it is based on is gone."""
        if merge.withdrawn:
            return Verdict(record.version, "unknown", f"{merge.withdrawn} of its updates were withdrawn")
        before, state = self._known.get(record.parent)
        try:
            contributions = [self._contribution(update) for update in merge.updates]
        except UpdateRefused as error:
            return Verdict(record.version, "differs", f"an update is not the one that was accepted: {error}")
        result = merger(merge.section)(self._versions.trained.gather(before), state, contributions, self._known.trained)
        vector = before.copy()
        self._versions.trained.scatter(result.weights, vector)
        self._known.add(record.version, vector, result.state)
        for what, expected, found in self._hashes(record, vector, result.state):
            if expected != found:
                return Verdict(record.version, "differs", f"{what} come to {found[:12]}, and not {expected[:12]}")
        return Verdict(record.version, "equal")

    def _contribution(self, update: KeptUpdate) -> Contribution:
        """As it was merged; raises :exc:`UpdateRefused` if its bytes are not those that were accepted."""
        delta = parse_update(update.content, update.sha256, self._tiers[update.tier])
        whole = Contribution(
            id=update.assignment,
            region=self._regions[update.tier],
            delta=delta,
            examples=update.examples,
            staleness=update.staleness,
            base=update.base,
            device=update.device,
            factor=update.factor,
        )
        return whole if update.scale == 1.0 else whole.times(np.float32(update.scale))

    def _hashes(self, record: VersionRecord, vector: Vector, state: State) -> Iterator[tuple[str, str, str]]:
        """What is compared: its name, the hash that is written down, and the one that came out."""
        part = trained_part(self._versions.subsets, self._versions.layout.views(vector))
        exact = record.private.get(MASTER, record.weights[-1])
        yield "the weights", exact.sha256, hashlib.sha256(safetensors.dumps(part)).hexdigest()
        if OPTIMISER in record.private:
            content = safetensors.dumps(dict(state))
            yield "the optimiser's numbers", record.private[OPTIMISER].sha256, hashlib.sha256(content).hexdigest()
