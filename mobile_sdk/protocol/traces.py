"""
The trace of a trip: the same on both sides, though nothing of it travels.

A trip is an assignment's way, from the device's wish for work to the version that its update became part of. Both
sides make the identities of its trace (W3C Trace Context) from what they know anyway.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

__all__ = ["TripTrace"]


class TripTrace(NamedTuple):
    """
    Identities of a trip in hexadecimal.

    ``trace`` (32 digits) is the trace's; ``span`` (16 digits) that of the trip as a whole, the parent of its parts.
    """

    trace: str
    span: str

    @classmethod
    def of(cls, signature: str, assignment: str) -> TripTrace:
        """
        The trace of an assignment.

        Args:
            signature: of the program's manifest; no two runs have the same.
            assignment: its name.

        """
        digest = hashlib.sha256(f"trip {signature} {assignment}".encode()).hexdigest()
        return cls(digest[:32], digest[32:48])

    @property
    def parent(self) -> str:
        """The header ``traceparent`` of what belongs to the trip."""
        return f"00-{self.trace}-{self.span}-01"

    @classmethod
    def parse(cls, parent: str) -> TripTrace:
        """
        What :attr:`parent` says.

        Raises:
            ValueError: if it is no such header.

        """
        parts = parent.split("-")
        if len(parts) != 4 or (len(parts[1]), len(parts[2])) != (32, 16):
            raise ValueError(f"{parent!r} is no traceparent of version 00")
        int(parts[1], 16), int(parts[2], 16)
        return cls(parts[1], parts[2])
