"""What a program takes is the program's, whatever the process that measures it was started with."""

from __future__ import annotations

import pytest

from exporters import Plan
from exporters.memory.measure import measure
from exporters.program.build import build
from tests.exporters.export_tasks import tiny_task


@pytest.mark.full
def test_the_environment_is_not_in_what_a_program_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable moves the end of the heap: what was free there was taken for the program's, or not, 250 KB of it."""
    task = tiny_task()
    program = build(task, Plan.everything(task), ("train_step",))
    found = []
    for length in range(0, 2_000, 250):
        monkeypatch.setenv("ANY", "x" * length)
        found.append(measure(program).total_bytes)
    assert max(found) - min(found) < 40_000, found
