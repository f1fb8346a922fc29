"""What ``ftte`` says without a command: what to do first, or next, in this folder."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path

from ..admin.client import find_admin_folder
from ..admin.files import TOKEN_FILE
from ..errors import CoordinatorError

__all__ = ["first_steps"]

FIRST = [
    ("ftte demo", "see it: a coordinator and eight devices on this machine"),
    ("ftte new my_project", "begin a project of your own, which runs as it is made"),
]


def first_steps(here: Path) -> str:
    """
    A few commands with what they do.

    Args:
        here: the folder where the user is.

    """
    following = [*_next(here)]
    steps = [*(following or FIRST), ("ftte --help", "all commands")]
    width = max(len(command) for command, _ in steps)
    lines = [f"  {command:{width}}  {words}" for command, words in steps]
    return "\n".join(["What to do next:" if following else "What to do first:", *lines])


def _next(here: Path) -> Iterator[tuple[str, str]]:
    try:
        serving = (find_admin_folder(here) / TOKEN_FILE).exists()
    except CoordinatorError:
        serving = True
    if serving:
        yield "ftte dashboard", "see the runs that are served here in a browser"
        yield "ftte top", "or in this terminal"
        yield "ftte invite", "let a device join"
        return
    for file in sorted(here.glob("*.toml")):
        if _is_run_file(file):
            yield f"ftte doctor {file.name}", "what would go wrong"
            yield f"ftte run {file.name}", "the run with a few devices on this machine"
            yield f"ftte serve {file.name}", "the run for devices that join"
            return


def _is_run_file(file: Path) -> bool:
    try:
        data = tomllib.loads(file.read_text())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(data.get("run"), dict) and "budgets" in data
