"""
The weights over time.

A version is published as safetensors files that overlay each other: one with what no tier ever
trains, which never changes and travels once, and one with the rest. The latter lies on a grid
(:mod:`mobile_sdk.payload.grid`), so that devices can be sent differences; the exact weights, which merging goes on
from, are the coordinator's own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Mapping, Sequence

from mobile_sdk import safetensors
from mobile_sdk.durable_files import map_file
from mobile_sdk.layout import Layout, Subset, Vector
from mobile_sdk.payload.grid import Grid
from mobile_sdk.protocol.messages import ArtifactRef
from mobile_sdk.weights import map_weights

from ..errors import StoreError
from ..merge.merger import trained_region
from ..merge.optimisers import State
from ..merge.regions import WeightRegion
from ..merge.step_sizes import Ranges
from ..store.interface import ArtifactStore, VersionStore
from ..store.records import DiscardedUpdate, MergedUpdate, VersionOutline, VersionRecord
from .files import MASTER, OPTIMISER, RANGES, put_trained, trained_part
from .lineage import Lineage

__all__ = ["Versions"]


# Earlier versions that are kept in memory, for staleness by distance.
CACHED = 4
# Ranges of updates that are kept in memory; most versions have the same as the one before.
CACHED_RANGES = 64


class Versions:
    """
    The newest version, and how the next one is made durable.

    ``trained`` is the region of the weight vector that some tier trains; merging knows nothing else of it. ``merges``
    counts them all, those that were rolled back as well: numbers of versions may have gaps.

    Args:
        store: where versions are kept, and
        artifacts: where their files are.
        layout: of the weight vector.
        subsets: of all tiers.
        inside: names of frozen weights that all tiers' programs have inside.

    """

    def __init__(
        self,
        store: VersionStore,
        artifacts: ArtifactStore,
        layout: Layout,
        subsets: Sequence[Subset],
        inside: Collection[str] = (),
    ) -> None:
        self._store = store
        self._artifacts = artifacts
        self._inside = frozenset(inside)
        self._held: dict[str, bool] = {}
        self._ranges: dict[str, Mapping[str, Ranges]] = {}
        self.layout = layout
        self.subsets = subsets
        self.trained = trained_region([WeightRegion(subset.positions()) for subset in subsets])
        self.reload()

    def reload(self) -> None:
        """
        Take what the store says in the place of what memory says. Blocks.

        Raises:
            StoreError: if the newest version's files are damaged.

        """
        self._lineage = Lineage()
        self._pruned: set[int] = set()
        self.merges = 0
        for record in self._store.outlines():
            self._place(record)
            if record.pruned:
                self._pruned.add(record.version)
        newest = self._store.latest()
        self.grid = self._grid(newest)
        vector, state = self.load(newest), self.load_state(newest)
        self.newest, self.vector, self.state = newest, vector, state
        self._cached: dict[int, Vector] = {}
        self._ranges.clear()

    def load(self, record: VersionRecord) -> Vector:
        """
        The exact weights of a version. Blocks.

        Returns:
            float32, shape ``(layout.size,)``.

        Raises:
            StoreError: if its files are damaged, or were pruned.

        """
        if record.pruned:
            raise StoreError(f"the weights of version {record.version} were pruned: choose a version that is kept")
        refs = [*record.weights, *(ref for name, ref in record.private.items() if name == MASTER)]
        paths = [self._artifacts.verified(ref.sha256) for ref in refs]
        return self.layout.flatten(map_weights(self.layout, paths))

    def sent(self, record: VersionRecord) -> tuple[ArtifactRef, ...]:
        """The files of a version that devices need: not those of weights that their programs have inside. Blocks."""
        if not self._inside:
            return record.weights
        *frozen, trained = record.weights  # what is frozen is the same files in every version
        for ref in frozen:
            if ref.sha256 not in self._held:
                names = safetensors.loads(map_file(self._artifacts.path(ref.sha256)))[0].keys()
                self._held[ref.sha256] = names <= self._inside
        return (*(ref for ref in frozen if not self._held[ref.sha256]), trained)

    def at(self, version: int) -> Vector:
        """
        The trained vector of an earlier version. Blocks. Raises :exc:`StoreError` as :meth:`load` does.

        Returns:
            float32, shape ``(len(trained),)``.

        """
        if version not in self._cached:
            while len(self._cached) >= CACHED:
                del self._cached[next(iter(self._cached))]
            self._cached[version] = self.trained.gather(self.load(self._store.get(version)))
        return self._cached[version]

    def has_weights(self, version: int) -> bool:
        """Whether the files of a version are still here."""
        return version not in self._pruned

    def forget(self, pruned: Iterable[int]) -> None:
        """Versions have lost their files."""
        self._pruned.update(pruned)

    def with_trained(self, trained: Vector) -> Vector:
        """
        The whole weight vector, with new values where tiers train.

        Args:
            trained: float32, shape ``(len(self.trained),)``.

        Returns:
            float32, shape ``(layout.size,)``.

        """
        vector = self.vector.copy()
        self.trained.scatter(trained, vector)
        return vector

    def _grid(self, record: VersionRecord) -> Grid | None:
        """The grid that a version was published on, if it was: it stays the same for the whole run."""
        return Grid.in_file(*safetensors.loads(map_file(self._artifacts.path(record.weights[-1].sha256))))

    def commit(
        self,
        vector: Vector,
        state: State,
        metrics: Mapping[str, float],
        merged: Sequence[MergedUpdate],
        discarded: Sequence[DiscardedUpdate],
        created_at: float,
        ranges: Mapping[str, Ranges] | None = None,
    ) -> VersionRecord:
        """
        Make ``vector`` the next version, with its optimiser's state. Blocks; durable when it returns.

        Args:
            vector: float32, shape ``(layout.size,)``.
            state: of the optimiser.
            metrics: of the version.
            merged: updates that are part of it.
            discarded: updates that were left out of it.
            created_at: wall time.
            ranges: of the updates that start from it, by tier; those of the newest version, if none are given.

        Raises:
            StoreError: if any of the updates was consumed before; then there is no new version.

        """
        trained = trained_part(self.subsets, self.layout.views(vector))
        ranges = self.ranges(self.newest) if ranges is None else ranges
        put = put_trained(self._artifacts, self.newest.weights[:-1], trained, self.grid, state, ranges)
        number = self._store.next_number()
        record = VersionRecord(number, self.newest.version, put.weights, metrics, created_at, private=put.private)
        self._store.commit(record, merged, discarded)
        self._advance(record, vector, state)
        return record

    def roll_back(
        self,
        to: int,
        discarded: Sequence[DiscardedUpdate],
        closed: Sequence[str],
        created_at: float,
        *,
        by: str,
        why: str,
    ) -> VersionRecord:
        """
        Make a version that repeats version ``to``, its parent. Blocks; durable when it returns.

        Args:
            to: the version to go back to.
            discarded: accepted updates that are based on versions in between.
            closed: open assignments that are.
            created_at: wall time.
            by: who wants it, and
            why: for the audit log.

        Raises:
            StoreError: if there is no such version, or its weights were pruned.

        """
        target = self._store.get(to)
        vector, state = self.load(target), self.load_state(target)
        record = dataclasses.replace(
            target, version=self._store.next_number(), parent=to, created_at=created_at, kind="rollback"
        )
        self._store.rollback(record, discarded, closed, by=by, why=why)
        self._advance(record, vector, state)
        return record

    def load_state(self, record: VersionRecord) -> State:
        """
        The state of a version's optimiser; empty if it has none. Blocks.

        Raises:
            StoreError: if its file is damaged, or was pruned.

        """
        ref = record.private.get(OPTIMISER)
        if ref is None:
            return {}
        arrays, _ = safetensors.loads(self._artifacts.verified(ref.sha256).read_bytes())
        return arrays

    def ranges(self, record: VersionRecord) -> Mapping[str, Ranges]:
        """
        The ranges of updates that start from a version, by tier; empty if nothing was known then. May block.

        Raises:
            StoreError: if its file is damaged, or was pruned.

        """
        ref = record.private.get(RANGES)
        if ref is None:
            return {}
        known = self._ranges.get(ref.sha256)
        if known is None:
            known, _ = safetensors.loads(self._artifacts.verified(ref.sha256).read_bytes())
            while len(self._ranges) >= CACHED_RANGES:
                del self._ranges[next(iter(self._ranges))]
            self._ranges[ref.sha256] = known
        return known

    def staleness(self, version: int) -> int:
        """
        Versions merged since ``version``, an ancestor of the newest or the newest itself.

        At least 0: one that was rolled back while its update was on its way may lie ahead of the newest.
        """
        return self._lineage.staleness(version)

    def placed(self) -> list[tuple[int, int, bool]]:
        """Every version, its parent, and whether it was a rollback, from the first to the newest."""
        return self._lineage.placed()

    def merged(self) -> list[int]:
        """The numbers of all versions that are merges, oldest first."""
        return [version for version, parent, is_rollback in self._lineage.placed() if parent >= 0 and not is_rollback]

    def is_ancestor(self, version: int, of: int | None = None) -> bool:
        """Whether the version ``of`` (by default the newest) came from ``version``, or is it."""
        return self._lineage.is_ancestor(version, of)

    def _advance(self, record: VersionRecord, vector: Vector, state: State) -> None:
        self._place(record)
        self.newest, self.vector, self.state = record, vector, state

    def _place(self, record: VersionOutline | VersionRecord) -> None:
        self.merges += record.kind == "merge"
        self._lineage.place(record.version, record.parent, is_rollback=record.kind == "rollback")
