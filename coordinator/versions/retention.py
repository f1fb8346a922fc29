"""Which versions keep their files."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from ..config import RetentionSection
from ..store.interface import Store
from ..store.records import VersionRecord

__all__ = ["prune"]


def prune(store: Store, section: RetentionSection, best: int | None, now: float, *, first: bool = False) -> list[int]:
    """
    Remove the files of versions that nobody needs. Blocks.

    Args:
        store: of the run.
        section: what the operator wants kept.
        best: the version with the best metric, kept in any case.
        now: wall time.
        first: keep version 0, from which all others can be made anew.

    Returns:
        The versions that have no files any more; their records stay.

    """

    def keep(versions: Sequence[VersionRecord]) -> Collection[int]:
        newest = {version.version for version in versions[-section.versions :]}
        return newest | ({best} if best is not None else set()) | ({0} if first else set())

    pruned = store.versions.prune(keep, now - 86_400.0 * section.held_days)
    if pruned:
        store.collect()
    return pruned
