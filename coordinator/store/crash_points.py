"""
The instants between two writes, by name.

What must survive a kill at any instant is tested by killing a process at each of these: a store alone, and a real
coordinator under load that an operator works on. The environment variable ``FTTE_CRASH_AT`` names a step, and
optionally after how many passes, as in ``merge: committed*3``.
"""

from __future__ import annotations

import os

from mobile_sdk.system.processor import end_at_once

__all__ = ["LOOP_STEPS", "OPERATION_STEPS", "STEPS", "step"]

# What devices and merges pass.
LOOP_STEPS = (
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

# What enrolments and operators pass, and a start that finds a damaged update ("discard").
OPERATION_STEPS = (
    "enrol: rows",
    "enrol: committed",
    "revoke: rows",
    "revoke: committed",
    "withdraw: rows",
    "withdraw: committed",
    "set aside: rows",
    "set aside: committed",
    "discard: rows",
    "discard: committed",
    "rollback: rows",
    "rollback: committed",
    "key: succession written",
    "key: written",
    "sign: committed",
)

STEPS = LOOP_STEPS + OPERATION_STEPS


_label, _, _passes = os.environ.get("FTTE_CRASH_AT", "").partition("*")
_left = int(_passes or 1)


def step(label: str) -> None:
    """Pass a named instant."""
    global _left  # noqa: PLW0603 - a countdown of the process, which ends with it
    if label == _label:
        _left -= 1
        if _left == 0:
            end_at_once()
