"""Whoever waits for a long command sees that it goes on, on a terminal and in a log."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from exporters.cli.progress import LINE_SECONDS, StageProgress


def test_off_a_terminal_a_stage_is_a_line_and_again_one_now_and_then() -> None:
    written, now = io.StringIO(), [0.0]
    with StageProgress(Console(file=written), now=lambda: now[0]) as progress:
        progress.say("importing torch")
        for done in range(8):
            now[0] += LINE_SECONDS / 4
            progress.show("sensitivity", done, 12)
        progress.show("searching for 2.00 MB", 0, 1)
    assert written.getvalue().splitlines() == [
        "importing torch",
        "sensitivity: 0 of 12",
        "sensitivity: 4 of 12",
        "searching for 2.00 MB: 0 of 1",
    ]


def test_where_the_output_is_json_there_is_no_progress(capsys: pytest.CaptureFixture[str]) -> None:
    with StageProgress(Console(), as_json=True) as progress:
        progress.say("importing torch")
        progress.show("sensitivity", 3, 12)
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_on_a_terminal_there_is_a_bar_that_goes_away() -> None:
    written = io.StringIO()
    console = Console(file=written, force_terminal=True, width=100)
    with StageProgress(console) as progress:
        progress.show("sensitivity", 3, 12)
    assert "sensitivity" in written.getvalue()
    assert "3/12" in written.getvalue()
