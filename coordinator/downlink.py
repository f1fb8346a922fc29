"""
Shorter ways to a version, for devices that hold another one.

What a device holds it says itself, whenever it asks for work; nothing is remembered of it here. Differences are kept in
memory for as long as there is room, since many devices come from the same version.
"""

from __future__ import annotations

import collections
import hashlib
import threading
from collections.abc import Mapping, Sequence

from mobile_sdk.errors import PayloadError
from mobile_sdk.files import map_file
from mobile_sdk.payload import make_difference
from mobile_sdk.protocol.messages import ArtifactRef, Difference, Hex, Sha256

from .errors import StoreError
from .store.base import Store

__all__ = ["Downlink"]

# Packed differences in memory, for all devices together.
MOST_BYTES = 64_000_000


class Downlink:
    """
    Differences between the files of published versions.

    Args:
        store: where the files are.

    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: collections.OrderedDict[tuple[str, str], bytes | None] = collections.OrderedDict()
        self._lock = threading.Lock()

    def differences(self, holds: Sequence[str], weights: Sequence[ArtifactRef]) -> Mapping[Difference, bytes]:
        """
        The shortest ways to the files of a version, with their content; none where the file itself is shorter.

        Blocks.

        Args:
            holds: the files that the device has.
            weights: the files that it shall have.

        """
        found = {}
        for ref in weights:
            if ref.sha256 in holds:
                continue
            ways = [(base, content) for base in holds if (content := self._between(base, ref.sha256))]
            if not ways:
                ways = [("", content) for content in (self._between("", ref.sha256),) if content]
            base, content = min(ways, key=lambda way: len(way[1]), default=("", b""))
            if content and len(content) < ref.size:
                artifact = ArtifactRef(Sha256(hashlib.sha256(content).hexdigest()), len(content))
                found[Difference(Sha256(ref.sha256), Hex(base), artifact)] = content
        return found

    def _between(self, base: str, target: str) -> bytes | None:
        with self._lock:  # who comes second finds what the first has made
            if (base, target) not in self._known:
                self._known[base, target] = self._make(base, target)
                while (
                    sum(len(content or b"") for content in self._known.values()) > MOST_BYTES and len(self._known) > 1
                ):
                    self._known.popitem(last=False)
            self._known.move_to_end((base, target))
            return self._known[base, target]

    def _make(self, base: str, target: str) -> bytes | None:
        try:
            old = map_file(self._store.artifact(base)) if base else None
            return make_difference(old, map_file(self._store.artifact(target)))
        except (StoreError, PayloadError, OSError, ValueError):  # pruned, or never one of ours
            return None
