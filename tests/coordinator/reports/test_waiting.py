"""What a run waits for, in words that fit its state."""

from __future__ import annotations

import dataclasses

import pytest

from coordinator.reports.waiting import waiting_words
from coordinator.status import DeviceStatus, RunStatus

RUNNING = RunStatus(
    name="digits",
    phase="running",
    reason="started",
    version=3,
    metrics={},
    history=(),
    buffered=1,
    capacity=4,
    adaptive=False,
    mean_staleness=None,
    margin=None,
    merged=0,
    staleness={},
    devices=(DeviceStatus("a", state="training"), DeviceStatus("b", state="waiting"), DeviceStatus("c")),
)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "Version 4 needs 3 more updates: 1 training, 1 waiting for their turn."),
        ({"buffered": 3}, "Version 4 needs 1 more update: 1 training, 1 waiting for their turn."),
        ({"buffered": 4}, "The buffer is full: version 4 is being merged."),
        ({"devices": ()}, "No device has joined yet."),
        ({"waits_for": "updates of 2 more devices"}, "The next version waits for updates of 2 more devices."),
        ({"phase": "finished", "reason": "enough"}, "The run has ended: enough."),
        ({"phase": "stopped", "reason": "stopped, because the disk is full"}, "The run has stopped, because the disk"),
        ({"phase": "paused"}, "The run is paused: no work is given out, and nothing is merged."),
        ({"devices": (DeviceStatus("a", state="idle"),)}, "and no device is working"),
    ],
)
def test_the_words_fit_the_state(changes: dict[str, object], words: str) -> None:
    assert words in waiting_words(dataclasses.replace(RUNNING, **changes))  # type: ignore[arg-type]
