"""
Merged updates that an operator wants kept, so that versions can be made anew and compared (:mod:`.replay`).

One file a version in ``merged`` of the state directory: a safetensors file with every update's bytes as they came, and
what the merge made of each. They are updates of single devices, which are erased after their merge otherwise.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mobile_sdk import safetensors
from mobile_sdk.durable_files import remove_leftovers, write_durably
from mobile_sdk.errors import PayloadError
from mobile_sdk.system.syncs import make_folder

from ..config import MergeSection
from ..errors import StoreError
from ..merge.contribution import Contribution
from ..store.artifacts import disk_available
from ..store.records import UpdateRecord

__all__ = ["KeptMerge", "KeptMerges", "KeptUpdate"]

log = logging.getLogger(__name__)

_METADATA = "merge"


@dataclasses.dataclass(frozen=True)
class KeptUpdate:
    """
    One update of a merge.

    ``content`` is its file as it came, with the hash ``sha256``. ``examples``, ``factor`` and ``scale`` are what the
    defence against single devices left of it; see :class:`~coordinator.merge.contribution.Contribution`.
    """

    assignment: str
    device: str
    tier: str
    sha256: str
    base: int
    staleness: int
    examples: float
    factor: float
    scale: float
    content: bytes = dataclasses.field(repr=False)


@dataclasses.dataclass(frozen=True)
class KeptMerge:
    """What a version was made of, in the order in which the updates came; ``withdrawn`` of them are gone."""

    version: int
    section: MergeSection
    updates: Sequence[KeptUpdate]
    withdrawn: int = 0


class KeptMerges:
    """The folder ``merged`` of a state directory."""

    def __init__(self, state: Path) -> None:
        self._folder = state / "merged"

    def keep(
        self,
        version: int,
        section: MergeSection,
        updates: Iterable[tuple[UpdateRecord, bytes]],
        contributions: Sequence[Contribution],
    ) -> None:
        """
        Write down what the next version is made of. Blocks; durable when it returns.

        Args:
            version: its number.
            section: how it was merged.
            updates: of the buffer, with their files.
            contributions: what was merged of them.

        """
        bounded = {c.id: c for c in contributions}
        kept = [
            KeptUpdate(
                record.assignment,
                record.device,
                record.tier,
                record.artifact.sha256,
                record.version,
                own.staleness,
                own.examples,
                own.factor,
                own.scale,
                content,
            )
            for record, content in updates
            for own in (bounded[record.assignment],)
        ]
        with disk_available():
            make_folder(self._folder, 0o700)
            self._write(KeptMerge(version, section, kept))

    def forget(self, device: str) -> int:
        """A device was withdrawn: nothing of it is kept. Blocks; returns how many updates that were."""
        gone = 0
        for version in self.versions():
            try:
                merge = self.read(version)
            except StoreError as error:  # nobody can say whose updates it holds
                log.error("%s: it is removed", error)
                with disk_available():
                    self._path(version).unlink()
                continue
            own = [update for update in merge.updates if update.device == device]
            if own:
                rest = [update for update in merge.updates if update.device != device]
                with disk_available():
                    self._write(dataclasses.replace(merge, updates=rest, withdrawn=merge.withdrawn + len(own)))
                gone += len(own)
        return gone

    def forget_all_but(self, merged: Collection[int]) -> None:
        """Remove what a kill left behind: updates of versions that were never published. Blocks."""
        for version in set(self.versions()) - set(merged):
            self._path(version).unlink()
        if self._folder.exists():
            remove_leftovers(self._folder)

    def versions(self) -> list[int]:
        """Versions whose updates are kept, in order."""
        return sorted(int(path.stem) for path in self._folder.glob("*.safetensors") if path.stem.isdecimal())

    def read(self, version: int) -> KeptMerge:
        """
        What a version was made of.

        Raises:
            StoreError: if nothing is kept of it, or the file is damaged.

        """
        path = self._path(version)
        try:
            arrays, metadata = safetensors.loads(path.read_bytes())
            merge: Mapping[str, Any] = json.loads(metadata[_METADATA])
            updates = [KeptUpdate(**facts, content=arrays[facts["assignment"]].tobytes()) for facts in merge["updates"]]
            return KeptMerge(version, MergeSection(**merge["section"]), updates, merge["withdrawn"])
        except (OSError, KeyError, TypeError, ValueError, PayloadError) as error:
            raise StoreError(f"{path} cannot be read: {error}") from error

    def _write(self, merge: KeptMerge) -> None:
        facts = list(self._facts(merge.updates))
        section = merge.section.model_dump(mode="json")
        text = json.dumps({"section": section, "updates": facts, "withdrawn": merge.withdrawn})
        arrays = {update.assignment: np.frombuffer(update.content, np.uint8) for update in merge.updates}
        write_durably(self._path(merge.version), safetensors.dumps(arrays, {_METADATA: text}))

    @staticmethod
    def _facts(updates: Sequence[KeptUpdate]) -> Iterator[dict[str, Any]]:
        for update in updates:
            facts = dataclasses.asdict(update)
            del facts["content"]
            yield facts

    def _path(self, version: int) -> Path:
        return self._folder / f"{version:08d}.safetensors"
