"""A measurement that something else disturbed ends no export."""

from __future__ import annotations

import dataclasses

import pytest

from exporters import Plan, Program, export, pipeline
from exporters.errors import BudgetError
from exporters.memory.footprint import Footprint
from exporters.memory.measure import measure
from tests.exporters.export_tasks import tiny_task


def test_what_seems_to_take_too_much_is_measured_again(monkeypatch: pytest.MonkeyPatch) -> None:
    task = tiny_task()
    plan = Plan.everything(task)
    disturbed = [3_000_000, 2_000_000, 0]  # bytes that were not the program's

    def measure_disturbed(program: Program) -> Footprint:
        found = measure(program)
        return dataclasses.replace(found, workspace_bytes=found.workspace_bytes + disturbed.pop(0))

    monkeypatch.setattr(pipeline, "measure", measure_disturbed)
    measured = export(task, plan=plan, budget="2MB", cached=False).manifest.memory.measured_bytes
    assert disturbed == []
    assert measured < 2_000_000
    disturbed += [5_000_000] * 3
    with pytest.raises(BudgetError, match=r"the plan takes 5\..* MB, more than 2.00 MB: give a larger budget"):
        export(task, plan=plan, budget="2MB", cached=False)
