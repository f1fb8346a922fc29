"""Several run files that are to be served together, or beside each other on one machine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from ..config import Config, ServerSection
from .findings import Finding

__all__ = ["check_together"]


def check_together(configs: Mapping[Path, Config]) -> Iterator[Finding]:
    """Whether run files, by their paths, can be served by one process."""
    names: dict[str, Path] = {}
    states: dict[Path, Path] = {}
    for file, config in configs.items():
        other = names.setdefault(config.run.name, file)
        if other != file:
            yield Finding("error", f"{other} and {file} have the same run.name {config.run.name!r}: rename one of them")
        state = config.run.state.resolve()
        other = states.setdefault(state, file)
        if other != file:
            yield Finding(
                "error", f"{other} and {file} keep their runs in the same state directory {state}: set run.state"
            )
    given = [(file, config.server) for file, config in configs.items() if config.server != ServerSection()]
    for file, section in given[1:]:
        if section != given[0][1]:
            yield Finding(
                "error",
                f"{given[0][0]} and {file} have different [server] tables, and runs that are served together share "
                "one: write it into one of them, or the same into both",
            )
