"""The promises of the documentation, as checks of a run just after its start and at its end."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

import numpy as np

from coordinator.admin.metrics import metric_families
from coordinator.errors import StoreError
from coordinator.net.admission import ConnectionLimits
from coordinator.runs.served_run import ServedRun
from coordinator.store.sqlite import SqliteStore

from .ledger import Ledger
from .model import LAYOUT, SUBSETS

__all__ = ["INVARIANTS", "check_erased", "check_numbers", "check_state", "scrape"]

REASONS = ("stale", "outlier", "not-finite", "rolled-back", "withdrawn", "damaged", "set-aside")


class Row(NamedTuple):
    """An update's row."""

    assignment: str
    device: str | None
    version: int
    tier: str
    sha256: str
    report: str
    merged_into: int | None
    staleness: int | None
    weight: float | None
    discarded: str | None

    @property
    def fate(self) -> str:
        """What has become of it; empty while it waits."""
        if self.merged_into is not None:
            return f"merged into {self.merged_into}"
        return f"discarded: {self.discarded}" if self.discarded is not None else ""


class State:
    """What a run's database says, read once."""

    def __init__(self, run: ServedRun) -> None:
        self.run = run
        self.store: Any = run.store
        rows = cast(Any, self.store)._database.rows(
            "SELECT assignment, device, version, tier, sha256, report, merged_into, staleness, weight, discarded "
            "FROM updates ORDER BY arrival"
        )
        self.rows = [Row(*row) for row in rows]
        self.by_assignment = {row.assignment: row for row in self.rows}
        self.versions = {record.version: record for record in self.store.versions.all()}
        self.devices = {record.id: record for record in self.store.devices.all()}

    def line(self, version: int) -> Iterator[int]:
        """The version and what it came from."""
        while version >= 0:
            yield version
            version = self.versions[version].parent


def _acknowledged(state: State, ledger: Ledger) -> None:
    """Every acknowledged update is in exactly one version, or erased for a recorded reason, or waits."""
    for assignment, told in ledger.acknowledged.items():
        row = state.by_assignment.get(assignment)
        if row is None:
            if told.device not in ledger.withdrawn and not ledger.restored:
                ledger.fail("nothing acknowledged is lost", f"{assignment} of {told.device} is not in the database")
            continue
        if row.merged_into is not None and row.discarded is not None:
            ledger.fail("an update has one fate", f"{assignment}: {row}")
        if row.merged_into is not None and row.merged_into not in state.versions:
            ledger.fail("nothing acknowledged is lost", f"{assignment} is merged into no version")
        if not row.fate:
            try:
                state.store.updates.content(assignment)
            except StoreError as error:
                ledger.fail("nothing acknowledged is lost", f"{assignment} waits, but {error}")


def _fates(state: State, ledger: Ledger) -> None:
    """Nothing is merged twice, and no fate changes."""
    for row in state.rows:
        before = ledger.fates.get(row.assignment, "")
        if before not in ("", "discarded: damaged", row.fate):
            ledger.fail("nothing is merged twice", f"{row.assignment} was {before}, and is {row.fate or 'waiting'}")
        if row.fate:
            ledger.fates[row.assignment] = row.fate
        if row.discarded is not None and row.discarded not in REASONS:
            ledger.fail("what is erased has a recorded reason", f"{row.assignment}: {row.discarded}")
        if row.discarded == "damaged" and not ledger.rotten:
            ledger.fail("nothing acknowledged is lost", f"{row.assignment} is damaged, and no disk has lost anything")


def _reasons(state: State, ledger: Ledger) -> None:
    """Reasons hold: stale where there is a limit, void where a rollback made it so."""
    merge = state.run.config.merge
    rollbacks = [record for record in state.versions.values() if record.kind == "rollback"]
    lines = {record.version: set(state.line(record.version)) for record in rollbacks}
    needs_base = merge.difference == "current" or merge.staleness.policy == "distance"
    for row in state.rows:
        if row.discarded == "rolled-back" and all(row.version in line for line in lines.values()):
            ledger.fail("a rollback voids what it must and nothing else", f"{row.assignment} was void for no rollback")
        if row.discarded == "stale" and merge.staleness.maximum is None and not needs_base:
            ledger.fail("what is erased has a recorded reason", f"{row.assignment} is stale, but there is no limit")
        if row.discarded == "withdrawn" and row.device is not None:
            ledger.fail("a withdrawn device leaves no name", f"{row.assignment} names {row.device}")


def _chain(state: State, ledger: Ledger) -> None:
    """Versions follow from their parents, with files whose hashes fit; what was published stays."""
    seen = -1
    for number, record in state.versions.items():
        if number <= seen or record.parent >= number or (number > 0 and record.parent not in state.versions):
            ledger.fail("versions' hashes chain", f"version {number} follows {seen} and came from {record.parent}")
        seen = number
        if not record.pruned:
            for ref in (*record.weights, *record.private.values()):
                try:
                    state.store.artifacts.verified(ref.sha256)
                except StoreError as error:
                    ledger.fail("versions' hashes chain", f"version {number}: {error}")
    for number, (parent, kind, hashes) in ledger.published.items():
        now = state.versions.get(number)
        same = now is not None and (parent, kind, hashes) == (
            now.parent,
            now.kind,
            tuple(ref.sha256 for ref in (*now.weights, *now.private.values())),
        )
        if not same:
            ledger.fail("what was published stays", f"version {number} was {parent} {kind}, and is {now}")


def _merged(state: State, ledger: Ledger) -> None:
    """A version holds only updates of its own line, with their true staleness; rollbacks hold none."""
    depth = {-1: -1}
    for number, record in state.versions.items():
        depth[number] = depth[record.parent] + (record.kind != "rollback")
    lines: dict[int, set[int]] = {}
    for row in state.rows:
        if row.merged_into is None or row.merged_into not in state.versions:
            continue
        version = state.versions[row.merged_into]
        line = lines.setdefault(version.parent, set(state.line(version.parent)))
        if version.kind != "merge" or row.version not in line:
            ledger.fail(
                "a rollback voids what it must and nothing else",
                f"{row.assignment}, trained from version {row.version}, is in version {version.version}",
            )
        elif row.staleness != depth[version.parent] - depth[row.version]:
            ledger.fail("staleness is what it was", f"{row.assignment}: {row.staleness} in {version.version}")
        limit = state.run.config.merge.staleness.maximum
        if limit is not None and (row.staleness or 0) > limit:
            ledger.fail("nothing is merged beyond the limit of staleness", f"{row.assignment}: {row.staleness}")


def _weights(state: State, ledger: Ledger) -> None:
    """Where the arithmetic is plain, versions are what an independent sum over their updates gives."""
    config = state.run.config
    merge, packing = config.merge, config.payload
    plain = (
        (merge.rule == "holders" and merge.optimiser.kind == "sgd" and merge.difference == "base" and not merge.defence)
        and merge.clip_norm is None
        and merge.outlier_factor is None
        and packing.top_k == 1
    )
    if not plain:
        return
    vectors: dict[int, Any] = {}
    versions = state.run.coordinator.state.versions
    by_version: dict[int, list[Row]] = {}
    for row in state.rows:
        if row.merged_into is not None:
            by_version.setdefault(row.merged_into, []).append(row)
    for number, record in state.versions.items():
        if not record.pruned:
            vectors[number] = versions.load(record)
        if record.kind != "merge" or number not in vectors or record.parent not in vectors:
            continue
        rows = by_version.get(number, [])
        if any(row.assignment not in ledger.deltas or row.device is None for row in rows):
            continue  # a stranger's, or of a device that was withdrawn, whose report is blank
        above, below = np.zeros(LAYOUT.size), np.zeros(LAYOUT.size)
        for row in rows:
            at, examples = SUBSETS[row.tier].positions(), _samples(row)
            above[at] += (row.weight or 0.0) * examples * ledger.deltas[row.assignment]
            below[at] += examples
        moved = np.divide(above, below, out=np.zeros_like(above), where=below > 0)
        if not np.allclose(vectors[number], vectors[record.parent] + moved, atol=2e-3, rtol=1e-3):
            worst = np.abs(vectors[number] - vectors[record.parent] - moved).max()
            ledger.fail("a version is the sum of its updates", f"version {number} is off by {worst:g}")


def _samples(row: Row) -> float:

    return float(json.loads(row.report).get("samples", math.nan))


def _people(state: State, ledger: Ledger) -> None:
    """What an operator was told is done stays done."""
    for device in ledger.revoked:
        if device in state.devices and state.devices[device].revoked_at is None:
            ledger.fail("what an operator was told is done stays done", f"{device} is not revoked any more")
    accepted: dict[str, int] = {}
    for row in state.rows:
        if row.device is not None:
            accepted[row.device] = accepted.get(row.device, 0) + 1
    for name, record in state.devices.items():
        if record.updates != accepted.get(name, 0) and not ledger.rotten:
            ledger.fail("the list of devices agrees", f"{name}: {record.updates}, but {accepted.get(name, 0)} rows")
    phase, _ = state.store.phase()
    decided = any(row.discarded for row in state.rows)
    if ledger.phase == "paused" and phase not in ("paused", "finished") and not decided:
        ledger.fail("what an operator was told is done stays done", f"the run was paused, and is {phase}")
    if ledger.key and state.run.coordinator.state.key.public != ledger.key:
        ledger.fail("what an operator was told is done stays done", "the run has another key than it said")


def _apart(state: State, ledger: Ledger) -> None:
    """A run holds what its own devices made, and nobody but its own operator has changed it; the audit log is whole."""
    try:
        for entry in state.store.audit.entries():
            if entry.actor.endswith("operator") and entry.actor != ledger.operator:
                ledger.fail("runs do not touch each other", f"{entry.action} by {entry.actor}, who operates another")
    except StoreError as error:
        ledger.fail("the audit log is whole", str(error))
    for row in state.rows:
        if row.device is not None and row.sha256 not in ledger.made:  # of a withdrawn device nothing is said
            ledger.fail("runs do not touch each other", f"no device of this run made the update {row.assignment}")
    for device, record in state.devices.items():
        if record.revoked_at is not None and device not in ledger.maybe_gone:
            ledger.fail("runs do not touch each other", f"{device} is revoked, though nobody asked for it")


def _memory(state: State, ledger: Ledger) -> None:
    """What memory says of a run that has just started is what the database says."""
    run = state.run.coordinator.state
    waiting = [row.assignment for row in state.rows if not row.fate]
    buffered = [update.record.assignment for update in run.buffer.all()]
    if sorted(waiting) != sorted(buffered):
        ledger.fail("what waits is buffered", f"{waiting} wait, {buffered} are buffered")
    merged = sum(row.merged_into is not None for row in state.rows)
    if run.updates_merged != merged:
        ledger.fail("metrics agree with what happened", f"{run.updates_merged} merged, but {merged} rows")


INVARIANTS: tuple[Callable[[State, Ledger], None], ...] = (
    _acknowledged,
    _fates,
    _reasons,
    _chain,
    _merged,
    _weights,
    _people,
    _apart,
)


def check_state(run: ServedRun, ledger: Ledger, *, fresh: bool) -> State:
    """
    Check everything that must hold at any time.

    Args:
        run: which nobody works on meanwhile.
        ledger: is told of what does not hold.
        fresh: whether it has just started, and done nothing.

    """
    state = State(run)
    for invariant in INVARIANTS:
        invariant(state, ledger)
    if fresh:
        _memory(state, ledger)
    return state


def check_erased(state: State, root: Path, ledger: Ledger) -> None:
    """
    No update's own bytes are anywhere in the state once it is merged or discarded.

    SQLite's free pages and its log are looked through like any other file. Left out are the files of versions, and
    ``merged`` where the run file says that updates are kept.
    """
    if isinstance(state.store, SqliteStore):
        _check_files(state, root, ledger)
    else:
        waiting = {row.assignment for row in state.rows if not row.fate}
        for (assignment,) in state.store.database.rows("SELECT assignment FROM contents"):
            if assignment not in waiting:
                ledger.fail("no update's bytes are left after its merge", f"{assignment} in the database")


def _check_files(state: State, root: Path, ledger: Ledger) -> None:
    named = {ref.sha256 for record in state.versions.values() for ref in (*record.weights, *record.private.values())}
    gone = [
        (assignment, canary)
        for assignment, canary in ledger.canaries.items()
        if (row := state.by_assignment.get(assignment)) is not None and row.fate
    ]
    over = {row.sha256: row.assignment for row in state.rows if row.fate}
    for path in sorted(root.glob("incoming/*")):
        if assignment := over.get(path.name.partition("@")[2]):
            ledger.fail("no update's bytes are left after its merge", f"a part of {assignment} in {path.name}")
    waiting = b"".join(_content(state, row.assignment) for row in state.rows if not row.fate)
    gone = [(assignment, canary) for assignment, canary in gone if canary not in waiting]  # two updates may end alike
    for path in sorted(root.rglob("*")):
        if not path.is_file() or path.name in named:
            continue
        if path.parent.name == "merged" and state.run.config.merge.keep_updates:
            continue
        content = path.read_bytes()
        for assignment, canary in gone:
            if canary in content and len(set(canary)) > 4:
                ledger.fail("no update's bytes are left after its merge", f"{assignment} in {path.relative_to(root)}")
        if path.name.startswith("state.sqlite"):
            for device in ledger.withdrawn - state.devices.keys():
                if f'"{device}"'.encode() in content or f"{device}{chr(0)}".encode() in content:
                    ledger.fail("a withdrawn device leaves no name", f"{device} in {path.name}")


def _content(state: State, assignment: str) -> bytes:
    try:
        return bytes(state.store.updates.content(assignment))
    except StoreError:
        return b""


def scrape(runs: Sequence[ServedRun]) -> dict[str, dict[str, float]]:
    """The metrics of a process's runs, as they are scraped: run -> metric -> the sum of its samples."""
    service = SimpleNamespace(runs={run.name: run for run in runs})
    found: dict[str, dict[str, float]] = {run.name: {} for run in runs}
    for family in metric_families(service, ConnectionLimits(1, 1, 1)):  # type: ignore[arg-type]
        for sample in family.samples:
            if "run" in sample.labels:
                values = found[sample.labels["run"]]
                values[family.name] = values.get(family.name, 0.0) + sample.value
    return found


def check_numbers(state: State, values: Mapping[str, float], ledger: Ledger) -> None:
    """The metrics of a run that are scraped say what happened."""
    merged = sum(row.merged_into is not None for row in state.rows)
    waiting = sum(not row.fate for row in state.rows)
    expected = {
        "ftte_merged_updates": merged,
        "ftte_buffered_updates": waiting,
        "ftte_version": max(state.versions),
        "ftte_accepted_updates": sum(row.device is not None for row in state.rows),
    }
    for name, value in expected.items():
        if values[name] != value and not (name == "ftte_accepted_updates" and ledger.rotten):
            ledger.fail("metrics agree with what happened", f"{name} is {values[name]:g}, not {value}")
