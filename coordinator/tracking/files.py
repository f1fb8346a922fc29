"""The history of a run as files: always on."""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .tracker import TrackedPhase, TrackedUpdate, TrackedVersion

__all__ = ["FileTracker"]

_COLUMNS = ("version", "parent", "kind", "at", "updates", "staleness", "weight", "buffer", "bytes_up", "bytes_down")


class FileTracker:
    """
    ``versions.csv`` (one line a version) and ``events.jsonl`` (every event) in a folder.

    A restart goes on below what is there. Lines are written as they come and not synced: the store is what is durable.

    Args:
        folder: made if missing.
        metrics: the names of the run's metrics; a column each.

    """

    def __init__(self, folder: Path, metrics: Sequence[str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._metrics = list(metrics)
        table = folder / "versions.csv"
        new = not table.exists() or table.stat().st_size == 0
        self._table = table.open("a", newline="", encoding="utf-8")
        self._rows = csv.writer(self._table)
        if new:
            self._rows.writerow([*_COLUMNS, *self._metrics])
            self._table.flush()
        self._events = (folder / "events.jsonl").open("a", encoding="utf-8")

    def on_version(self, version: TrackedVersion) -> None:
        self._rows.writerow(
            [
                *(_cell(getattr(version, name)) for name in _COLUMNS),
                *(_cell(version.metrics.get(name)) for name in self._metrics),
            ]
        )
        self._table.flush()
        self._event("version", version)

    def on_update(self, update: TrackedUpdate) -> None:
        self._event("update", update)

    def on_phase(self, phase: TrackedPhase) -> None:
        self._event("phase", phase)

    def close(self) -> None:
        self._table.close()
        self._events.close()

    def _event(self, name: str, event: Any) -> None:
        self._events.write(json.dumps({"event": name, **dataclasses.asdict(event)}, allow_nan=False) + "\n")
        self._events.flush()


def _cell(value: Any) -> Any:
    return "" if value is None else value
