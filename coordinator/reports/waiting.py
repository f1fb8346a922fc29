"""What a run waits for, in words."""

from __future__ import annotations

import collections

from ..status import DeviceState, RunStatus

__all__ = ["waiting_words"]

_PHASES = {
    "created": "The run has not been started: devices that come are told to wait.",
    "paused": "The run is paused: no work is given out, and nothing is merged.",
    "draining": "The run drains: no new work is given out; it pauses when the last device is done.",
    "finished": "The run has ended.",
}
_WORKING: dict[DeviceState, str] = {
    "training": "training",
    "downloading": "downloading",
    "uploading": "uploading",
    "evaluating": "evaluating",
    "waiting": "waiting for their turn",
}


def waiting_words(status: RunStatus) -> str:
    """
    One or two sentences for people.

    Args:
        status: one look at the run.

    """
    if status.phase == "stopped":
        return f"The run has {status.reason}. It is tried again by itself."
    if status.phase in _PHASES:
        words = _PHASES[status.phase]
        return f"{words.removesuffix('.')}: {status.reason}." if status.phase == "finished" and status.reason else words
    if not status.devices:
        return "No device has joined yet."
    if status.waits_for:
        return f"The next version waits for {status.waits_for}."
    missing = max(status.capacity - status.buffered, 0)
    doing = collections.Counter(device.state for device in status.devices)
    parts = [f"{doing[state]} {words}" for state, words in _WORKING.items() if doing[state]]
    if not missing:
        return f"The buffer is full: version {status.version + 1} is being merged."
    need = f"Version {status.version + 1} needs {missing} more update{'s' if missing > 1 else ''}"
    if not parts:
        return f"{need}, and no device is working: those that are connected have no work or do not ask for any."
    return f"{need}: {', '.join(parts)}."
