"""Rows for people: as a table where it fits, else one row after the other. Nothing is ever cut."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.cells import cell_len
from rich.console import Console

__all__ = ["Columns", "print_rows"]

Columns = Mapping[str, Callable[[Mapping[str, Any]], str]]

GAP = 2


def print_rows(console: Console, rows: Sequence[Mapping[str, Any]], columns: Columns, *, title: str = "") -> None:
    """
    Print rows under the names of their columns.

    Into a file or a pipe every row is one line. On a terminal that is too narrow for the table each row takes several:
    its first column, and the others below it by name, as many on a line as fit.

    Args:
        console: where to.
        rows: what the columns' functions take.
        columns: name -> what a row has there, in one line.
        title: a line above them.

    """
    if title:
        console.print(title, style="italic", highlight=False, markup=False, soft_wrap=True)
    cells = [[" ".join(value(row).split()) for value in columns.values()] for row in rows]
    widths = [max(map(cell_len, column)) for column in zip(columns, *cells, strict=True)]
    if not console.is_terminal or sum(widths) + GAP * (len(widths) - 1) <= console.width:
        lines = [_line(line, widths) for line in (list(columns), *cells)]
    else:
        lines = [line for row in cells for line in _stacked(list(columns), row, console.width)]
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = (cell + " " * (width - cell_len(cell)) for cell, width in zip(cells, widths, strict=True))
    return (" " * GAP).join(padded).rstrip()


def _stacked(names: Sequence[str], row: Sequence[str], width: int) -> list[str]:
    lines = [row[0]]
    for name, cell in zip(names[1:], row[1:], strict=True):
        words = f"{name}: {cell}" if name else cell
        if not cell:
            continue
        if len(lines) > 1 and cell_len(lines[-1]) + 3 + cell_len(words) <= width:
            lines[-1] += f"   {words}"
        else:
            lines.append(f"  {words}")
    return lines
