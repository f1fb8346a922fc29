"""What has happened in a federation, as those know it who were told: what must never be taken back."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Acknowledged", "Ledger", "Trace", "Violation"]


class Violation(AssertionError):
    """A promise was broken. ``invariant`` is its name."""

    def __init__(self, invariant: str, details: str) -> None:
        super().__init__(f"{invariant}: {details}")
        self.invariant = invariant


@dataclasses.dataclass(frozen=True)
class Acknowledged:
    """An update that a device was told is accepted."""

    device: str
    at: float


class Trace:
    """What happens in a federation, line by line, and what was broken; ``digest`` is the hash of all lines noted."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.problems: list[Violation] = []
        self._digest = hashlib.sha256()

    def note(self, now: float, line: str) -> None:
        """Write a line of the trace."""
        text = f"{now:9.3f} {line}"
        self.lines.append(text)
        self._digest.update(text.encode())

    @property
    def digest(self) -> str:
        """The hash of the whole trace."""
        return self._digest.hexdigest()

    def fail(self, invariant: str, details: str) -> None:
        """A promise was broken."""
        self.problems.append(Violation(invariant, details))
        self.lines.append(f"          broken: {invariant}: {details}"[:300])


class Ledger:
    """
    What was told to whom of one run.

    Args:
        trace: of the federation.
        run: begins what the trace says of the run; empty for the first.

    ``acknowledged`` has the updates that devices were told are accepted, ``fates`` what was seen to have become of
    updates, ``made`` the hashes of updates that the run's devices made, ``operator`` the name of its operator,
    ``published`` the versions that were told of, ``merged_into`` what they were said to hold. ``canaries`` are
    bytes that are in one update's file and nowhere else; ``given`` says to whom each assignment was given, and
    ``highest`` is the highest number of a version that anybody was told of.
    """

    def __init__(self, trace: Trace, run: str = "") -> None:
        self._trace = trace
        self._run = run
        self.made: set[str] = set()
        self.operator = f"{run}operator"
        self.acknowledged: dict[str, Acknowledged] = {}
        self.fates: dict[str, str] = {}
        self.published: dict[int, tuple[int, str, tuple[str, ...]]] = {}
        self.canaries: dict[str, bytes] = {}
        self.deltas: dict[str, npt.NDArray[np.float32]] = {}
        self.revoked: set[str] = set()
        self.withdrawn: set[str] = set()
        self.maybe_gone: set[str] = set()
        self.refused: dict[str, str] = {}
        self.highest = -1
        self.given: dict[str, str] = {}
        self.phase = ""
        self.key = ""
        self.rotting: set[str] = set()
        self.rotten = False
        self.restored = 0
        self.troubled = False
        self.secrets: set[str] = set()

    def note(self, now: float, line: str) -> None:
        """Write a line of the trace."""
        self._trace.note(now, self._run + line)

    def fail(self, invariant: str, details: str) -> None:
        """A promise was broken."""
        self._trace.fail(invariant, self._run + details)

    def snapshot(self) -> dict[str, Any]:
        """What a backup of now must hold."""
        names = ("acknowledged", "fates", "published", "revoked", "withdrawn", "phase", "key")
        return {name: copy.copy(getattr(self, name)) for name in names}

    def go_back(self, snapshot: dict[str, Any]) -> None:
        """A backup was restored: what came after it is not promised any more."""
        for name, value in snapshot.items():
            setattr(self, name, copy.copy(value))
        self.restored += 1
