"""Rows are shown whole, however wide the output is."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from exporters.cli.tables import print_rows

ROWS = [
    {"name": "device-6f1c4a02-in-the-kitchen", "state": "training", "seen": "2026-05-01 12:00:00", "note": ""},
    {"name": "b", "state": "offline", "seen": "-", "note": "two\nlines [red]and markup[/red]"},
]
COLUMNS = {"device": lambda r: r["name"], "state": lambda r: r["state"], "seen": lambda r: r["seen"]} | {
    "": lambda r: r["note"]
}


def shown(width: int, terminal: bool) -> str:
    file = io.StringIO()
    print_rows(Console(file=file, width=width, force_terminal=terminal, color_system=None), ROWS, COLUMNS)
    return file.getvalue()


@pytest.mark.parametrize(("width", "terminal"), [(20, False), (80, False), (20, True), (40, True), (200, True)])
def test_no_name_state_or_time_is_ever_cut_or_folded(width: int, terminal: bool) -> None:
    text = shown(width, terminal)
    for row in ROWS:
        for value in row.values():
            assert " ".join(value.split()) in text
    assert "…" not in text


def test_a_pipe_gets_one_line_per_row_in_columns() -> None:
    header, first, second = shown(20, terminal=False).splitlines()
    assert header.split() == ["device", "state", "seen"]
    assert first.index("training") == second.index("offline") == header.index("state")


def test_a_narrow_terminal_gets_the_values_below_the_name_as_many_on_a_line_as_fit() -> None:
    assert shown(40, terminal=True).splitlines() == [
        "device-6f1c4a02-in-the-kitchen",
        "  state: training",
        "  seen: 2026-05-01 12:00:00",
        "b",
        "  state: offline   seen: -",
        "  two lines [red]and markup[/red]",
    ]


def test_a_title_stands_above() -> None:
    file = io.StringIO()
    print_rows(Console(file=file), ROWS[:1], {"device": lambda r: r["name"]}, title="Devices")
    assert file.getvalue().splitlines() == ["Devices", "device", "device-6f1c4a02-in-the-kitchen"]
