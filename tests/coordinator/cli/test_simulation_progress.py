"""Whoever waits for a simulation sees that it goes on, on a terminal and in a log; JSON stays alone."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from coordinator.cli.simulation_progress import Display
from coordinator.simulation.result import Point

from ..simulation.test_simulate import digits


def point(seconds: float, version: int) -> Point:
    return Point(seconds, version, 4 * version, 0, 0, {"accuracy": 0.5})


def test_in_a_pipe_there_is_a_line_for_each_stage_and_one_now_and_then() -> None:
    written = io.StringIO()
    with Display(Console(file=written, width=200), digits()) as display:
        display.say("searching what to train within the budgets")
        display.progress(point(10.0, 1))
        display.progress(point(20.0, 2))  # at once: no line
    assert written.getvalue().splitlines() == [
        "searching what to train within the budgets",
        "10 s: version 1, 4 trips, accuracy 0.5000",
    ]


def test_on_a_terminal_there_is_a_bar_of_virtual_time() -> None:
    written = io.StringIO()
    console = Console(file=written, force_terminal=True, width=120)
    scenario = digits()
    with Display(console, scenario) as display:
        display.progress(point(1800 * scenario.simulation.hours, 3))
    assert "version 3, 12 trips" in written.getvalue()
    assert "50 %" in written.getvalue()


def test_beside_json_only_warnings_are_said_and_those_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    with Display(Console(), digits(), as_json=True) as display:
        display.say("searching what to train within the budgets")
        display.say("warning: the samples are few")
        display.progress(point(10.0, 1))
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "warning: the samples are few\n")
