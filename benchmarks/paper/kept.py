"""
The kept results of simulations: one compressed table, and an index of it that people can read.

``paper.jsonl.gz`` has a line of JSON per result: ``key`` (a hash of the run's settings), ``part`` and ``algorithm``
(the figure that it was made for), and ``result``. ``paper.csv`` has a row per result; it is written from the table and
never read. ``zcat paper.jsonl.gz | jq 'select(.key == "...") | .result'`` prints a result.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import fcntl
import gzip
import hashlib
import io
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.paper.report import final_accuracy
from mobile_sdk.durable_files import write_durably

__all__ = ["TABLE", "KeptResult", "KeptResults"]

TABLE = Path(__file__).parents[1] / "results" / "paper.jsonl.gz"
OF_RUN = ("seed", "devices", "stragglers", "slowdown", "law", "trips", "task")
OF_RESULT = ("seconds", "bytes_up", "bytes_down")


@dataclasses.dataclass(frozen=True)
class KeptResult:
    """One result: ``key`` names the settings, ``part`` the figure that the run was made for."""

    key: str
    part: str
    algorithm: str
    result: dict[str, Any]

    @property
    def sha256(self) -> str:
        """The first 16 hex digits of the hash of the result, written as JSON with an indent of one and a newline."""
        return hashlib.sha256((json.dumps(self.result, indent=1) + "\n").encode()).hexdigest()[:16]


class KeptResults:
    """
    The table at ``path``, read when it is first needed.

    Several processes may add results to one table.
    """

    def __init__(self, path: Path = TABLE) -> None:
        self.path = path
        self.index = path.with_name(path.name.removesuffix(".jsonl.gz") + ".csv")
        self._kept: dict[str, KeptResult] | None = None

    def __iter__(self) -> Iterator[KeptResult]:
        return iter(self._read().values())

    def __len__(self) -> int:
        return len(self._read())

    def find(self, key: str) -> dict[str, Any] | None:
        """The result of the settings whose hash is ``key``; none if there is none."""
        kept = self._read().get(key)
        return None if kept is None else kept.result

    def add(self, kept: KeptResult) -> None:
        """Write one more result into the table and its index. A kill leaves the table as it was, or with the result."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(self.path.parent):
            self._kept = None  # another process may have added to it
            everything = dict(sorted((self._read() | {kept.key: kept}).items()))
            lines = "".join(json.dumps(dataclasses.asdict(one)) + "\n" for one in everything.values())
            # Without a time in it, the same results make the same file.
            write_durably(self.path, gzip.compress(lines.encode(), mtime=0))
            write_durably(self.index, self.index_text(everything.values()).encode())
            self._kept = everything

    @staticmethod
    def index_text(results: Iterable[KeptResult]) -> str:
        """A table of the results as CSV, in the order of parts and algorithms."""
        file = io.StringIO()
        writer = csv.writer(file, lineterminator="\n")
        columns = ("part", "algorithm", *OF_RUN, "changes", *OF_RESULT, "final_accuracy", "key", "scenario", "sha256")
        writer.writerow(columns)
        rows = []
        for kept in results:
            run = kept.result["run"] if isinstance(kept.result["run"], dict) else {}  # the oldest do not say
            rows.append(
                [
                    kept.part,
                    kept.algorithm,
                    *(run.get(name, "") for name in OF_RUN),
                    json.dumps(run["changes"]) if run.get("changes") else "",
                    *(round(kept.result[name]) for name in OF_RESULT),
                    f"{final_accuracy(kept.result):.4f}",
                    kept.key,
                    kept.result["scenario_sha256"][:16],
                    kept.sha256,
                ]
            )
        writer.writerows(sorted(rows, key=lambda row: [str(cell) for cell in row]))
        return file.getvalue()

    def _read(self) -> dict[str, KeptResult]:
        if self._kept is None:
            self._kept = {}
            if self.path.exists():
                with gzip.open(self.path, "rt") as file:
                    for line in file:
                        kept = KeptResult(**json.loads(line))
                        self._kept[kept.key] = kept
        return self._kept


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Let one process at a time change what is in ``folder``."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
