"""
The weights over time.

A version is published as safetensors files that overlay each other: one with what no tier ever
trains, which never changes and travels once, and one with the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from mobile_sdk import safetensors
from mobile_sdk.layout import Layout, Subset, Vector
from mobile_sdk.protocol.messages import ArtifactRef, Sha256
from mobile_sdk.weights import map_weights

from .store.base import MergedUpdate, Store, VersionRecord

__all__ = ["Versions", "put_weights"]


def put_weights(store: Store, layout: Layout, subsets: Iterable[Subset], vector: Vector) -> tuple[ArtifactRef, ...]:
    """Write a weight vector as the files of a version; what did not change is there already."""
    views = layout.views(vector)
    trained = {name for subset in subsets for name in subset}
    parts = [
        {name: view for name, view in views.items() if name not in trained},
        {name: view for name, view in views.items() if name in trained},
    ]
    entries = [store.put(safetensors.dumps(part)) for part in parts if part]
    return tuple(ArtifactRef(Sha256(entry.sha256), entry.size) for entry in entries)


class Versions:
    """
    The newest version, and how the next one is made durable.

    Args:
        store: where versions are kept.
        layout: of the weight vector.
        subsets: of all tiers.

    """

    def __init__(self, store: Store, layout: Layout, subsets: Sequence[Subset]) -> None:
        self._store = store
        self._layout = layout
        self._subsets = subsets
        self.newest = store.latest()
        paths = [store.artifact(ref.sha256) for ref in self.newest.weights]
        self.vector = layout.flatten(map_weights(layout, paths))

    def commit(
        self, vector: Vector, metrics: Mapping[str, float], merged: Sequence[MergedUpdate], created_at: float
    ) -> VersionRecord:
        """Make ``vector`` the next version, consuming ``merged``. Blocks; durable when it returns."""
        refs = put_weights(self._store, self._layout, self._subsets, vector)
        record = VersionRecord(self._store.next_number(), self.newest.version, refs, metrics, created_at)
        self._store.commit(record, merged)
        self.newest, self.vector = record, vector
        return record

    def staleness(self, version: int) -> int:
        """Versions merged since ``version``."""
        return self.newest.version - version
