"""Which version came from which."""

from __future__ import annotations

__all__ = ["Lineage"]


class Lineage:
    """
    Parents and depths of all versions.

    A version's depth is the number of merges from version 0 to it; a rollback is none.
    """

    def __init__(self) -> None:
        self._parents: dict[int, int] = {}
        self._depths = {-1: -1}
        self._newest = -1
        self._line: set[int] = set()

    def place(self, version: int, parent: int, *, is_rollback: bool) -> None:
        """Add the next version: a child of ``parent``, -1 for version 0."""
        self._parents[version] = parent
        self._depths[version] = self._depths[parent] + (not is_rollback)
        # A merge continues the line of the newest version; only a rollback leaves it.
        self._line = self.ancestors(version) if is_rollback or parent != self._newest else self._line
        self._line.add(version)
        self._newest = version

    def placed(self) -> list[tuple[int, int, bool]]:
        """Every version, its parent, and whether it was a rollback; as they were placed."""
        depths = self._depths
        return [(version, parent, depths[version] == depths[parent]) for version, parent in self._parents.items()]

    def staleness(self, version: int) -> int:
        """
        Versions merged since ``version``, an ancestor of the newest or the newest itself.

        At least 0: one that was rolled back while its update was on its way may lie ahead of the newest.
        """
        return max(self._depths[self._newest] - self._depths.get(version, -1), 0)

    def is_ancestor(self, version: int, of: int | None = None) -> bool:
        """Whether the version ``of`` (by default the newest) came from ``version``, or is it."""
        return version in (self._line if of is None else self.ancestors(of))

    def ancestors(self, version: int) -> set[int]:
        """A version and all that it came from."""
        line = set()
        while version >= 0:
            line.add(version)
            version = self._parents.get(version, -1)
        return line
