"""
The instants between two writes, by name.

What must survive a kill at any instant is tested by killing a real coordinator at each of these: the
environment variable ``FTTE_CRASH_AT`` names a step, and optionally after how many passes, as in ``merge: committed*3``.
"""

from __future__ import annotations

import os

from mobile_sdk.system.processor import end_at_once

__all__ = ["STEPS", "step"]

STEPS = (
    "accept: written",
    "accept: synced",
    "accept: rows",
    "accept: committed",
    "assign: committed",
    "artifact: written",
    "artifact: synced",
    "artifact: named",
    "merge: version written",
    "merge: rows",
    "merge: committed",
    "erase: one segment",
    "erase: done",
    "prune: committed",
    "collect: one file",
)


_label, _, _passes = os.environ.get("FTTE_CRASH_AT", "").partition("*")
_left = int(_passes or 1)


def step(label: str) -> None:
    """Pass a named instant."""
    global _left  # noqa: PLW0603 - a countdown of the process, which ends with it
    if label == _label:
        _left -= 1
        if _left == 0:
            end_at_once()
