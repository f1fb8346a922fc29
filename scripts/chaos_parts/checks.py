"""What must hold of a state directory and the devices' logs, whatever happened."""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path

from .remerge import read_safetensors, remerge

__all__ = ["Report", "check"]

_ACCEPTED = re.compile(r"^(a\d{8}): accepted", re.MULTILINE)
_MERGED = re.compile(r"^(a\d{8}): merged in version (\d+)", re.MULTILINE)
# Of an update's file: long enough to be no coincidence.
_CANARY = 48


class Report:
    """What was looked at, and every sentence that did not hold."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.broken: list[str] = []

    def expect(self, holds: bool, sentence: str) -> None:
        """Note that ``sentence`` is broken unless it ``holds``."""
        if not holds:
            self.broken.append(sentence)

    def show(self) -> int:
        """Print it; returns 1 if a sentence is broken, else 0."""
        for what, count in self.counts.items():
            print(f"{count:8,} {what}")
        for sentence in self.broken:
            print(f"BROKEN: {sentence}")
        print(f"{len(self.broken)} sentences are broken" if self.broken else "everything holds", flush=True)
        return 1 if self.broken else 0


def check(state: Path, devices: Mapping[str, str], coordinator: str, folders: Sequence[Path] = ()) -> Report:
    """
    Check everything.

    Args:
        state: the state directory; nobody serves it any more.
        devices: name -> all that a device printed, over all its restarts.
        coordinator: all that the coordinator printed.
        folders: where no bytes of a merged update may be left; none: the state directory alone.

    """
    report = Report()
    database = sqlite3.connect(state / "state.sqlite")
    rows = database.execute("SELECT assignment, device, merged_into, discarded, size FROM updates").fetchall()
    versions = database.execute("SELECT version, parent, weights, private, kind, pruned FROM versions").fetchall()
    database.close()
    updates = {row[0]: row for row in rows}
    report.expect(len(updates) == len(rows), "an update is in the list twice")
    _check_acknowledged(report, devices, updates)
    kept = _check_merges(report, state, updates)
    _check_versions(report, state, versions)
    _check_erased(report, folders or [state], kept)
    for name, text in {"the coordinator": coordinator, **devices}.items():
        report.expect("Traceback" not in text, f"{name} printed a stack trace")
    good, wrong = remerge(state)
    report.counts["versions that an independent program makes anew"] = good
    for sentence in wrong:
        report.expect(False, sentence)
    return report


def _check_acknowledged(report: Report, devices: Mapping[str, str], updates: Mapping[str, tuple]) -> None:  # type: ignore[type-arg]
    """Every acknowledged update is merged, discarded for a stated reason, or waits; and devices heard the truth."""
    acknowledged = 0
    for name, text in devices.items():
        for assignment in _ACCEPTED.findall(text):
            acknowledged += 1
            row = updates.get(assignment)
            report.expect(row is not None, f"{name}'s {assignment} was acknowledged and is lost")
            if row is not None:
                report.expect(row[1] == name, f"{assignment} was acknowledged to {name} and is {row[1]}'s")
        for assignment, version in _MERGED.findall(text):
            row = updates.get(assignment)
            told = row is not None and row[2] == int(version)
            report.expect(told, f"{name} was told that {assignment} is in version {version}: it is in {row and row[2]}")
    report.counts["updates acknowledged"] = acknowledged
    report.counts["updates merged"] = sum(row[2] is not None for row in updates.values())
    report.counts["updates discarded"] = sum(row[3] is not None for row in updates.values())
    report.counts["updates waiting"] = sum(row[2] is None and row[3] is None for row in updates.values())


def _check_merges(report: Report, state: Path, updates: Mapping[str, tuple]) -> dict[str, bytes]:  # type: ignore[type-arg]
    """What was merged is what the list says, once; returns the merged updates' files."""
    kept: dict[str, bytes] = {}
    for path in sorted((state / "merged").glob("*.safetensors")):
        contents, metadata = read_safetensors(path.read_bytes())
        for update in json.loads(metadata["merge"])["updates"]:
            assignment, row = update["assignment"], updates.get(update["assignment"])
            report.expect(assignment not in kept, f"{assignment} was merged twice")
            into = None if row is None else row[2]
            report.expect(
                into == int(path.stem), f"{assignment} was merged into {int(path.stem)}; the list says {into}"
            )
            kept[assignment] = contents[assignment].tobytes()
    missing = [row[0] for row in updates.values() if row[2] is not None and row[0] not in kept]
    report.expect(not missing, f"{missing[:3]} are in a version by the list, and were not merged")
    return kept


def _check_versions(report: Report, state: Path, versions: list[tuple]) -> None:  # type: ignore[type-arg]
    """Version numbers have no gaps, each follows the one before, and their files have the right hashes."""
    numbers = [row[0] for row in versions]
    report.expect(numbers == list(range(len(numbers))), f"the versions are {numbers}")
    report.expect(all(row[1] == row[0] - 1 for row in versions), "a version does not follow the one before")
    for number, _, weights, private, _, pruned in versions:
        for ref in () if pruned else (*json.loads(weights), *json.loads(private).values()):
            path = state / "artifacts" / ref["sha256"]
            there = path.exists() and hashlib.sha256(path.read_bytes()).hexdigest() == ref["sha256"]
            report.expect(there, f"version {number} names {ref['sha256'][:12]}, which is missing or damaged")
    report.counts["versions"] = len(versions) - 1


def _check_erased(report: Report, folders: Sequence[Path], kept: Mapping[str, bytes]) -> None:
    """No byte of a merged update is anywhere in the state directory but where the operator wanted it kept."""
    files = [
        path for folder in folders for path in folder.rglob("*") if path.is_file() and path.parent.name != "merged"
    ]
    contents = {path: path.read_bytes() for path in files}
    looked = 0
    for assignment, content in kept.items():
        middle = len(content) // 2
        canary = content[middle : middle + _CANARY]
        if len(set(canary)) < 8:  # zeros of a channel that did not move are no canary
            continue
        looked += 1
        for path, text in contents.items():
            report.expect(canary not in text, f"{path} has bytes of the merged {assignment}")
    report.counts["merged updates looked for in the state"] = looked
