"""A kill at any instant loses nothing that was acknowledged, and merges nothing twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from coordinator.store.crash_points import LOOP_STEPS

from .crash_worker import SIZE, content, open_worker, values


def work(state: Path, rounds: int, crash_at: str = "") -> tuple[int, list[str]]:
    """Run the worker; its exit code and what it printed."""
    command = [sys.executable, "-m", "tests.coordinator.store.crash_worker", str(state), str(rounds)]
    environment = {**os.environ, "FTTE_CRASH_AT": crash_at}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    return done.returncode, done.stdout.splitlines()


def check(state: Path, said: list[str]) -> None:
    """Whatever was acknowledged is there, once; what was merged is erased."""
    store = open_worker(state)
    try:
        if store.run() is None:
            assert not said, "it was killed before anything began"
            return
        acknowledged = {line.split()[1] for line in said if line.startswith("accepted")}
        waiting = {update.assignment for update in store.updates.buffered()}
        merged = [update.assignment for update in store.updates.merged()]
        assert len(merged) == len(set(merged))
        assert not waiting & set(merged)
        assert acknowledged <= waiting | set(merged)
        for assignment in waiting:
            assert store.updates.content(assignment) == content(assignment)
        newest = store.versions.latest()
        assert newest.version >= max((int(line.split()[1]) for line in said if line.startswith("merged")), default=0)
        weights = np.frombuffer(store.artifacts.verified(newest.weights[0].sha256).read_bytes())
        expected = sum((values(content(name)) for name in merged), np.zeros(SIZE))
        assert weights.tolist() == expected.tolist(), "every merged update is in the weights once"
        left = b"".join(path.read_bytes() for path in state.rglob("*") if path.is_file())
        assert not [name for name in merged if content(name)[:200] in left], "merged updates are erased"
        assert not list((state / "artifacts").glob("*.new"))
    finally:
        store.close()


@pytest.mark.parametrize("passes", [pytest.param(1, marks=pytest.mark.full), 3])
@pytest.mark.parametrize("step", LOOP_STEPS)
def test_nothing_is_lost_or_doubled_by_a_kill_at(step: str, passes: int, tmp_path: Path) -> None:
    state = tmp_path / "state"
    code, said = work(state, 8, f"{step}*{passes}")
    assert code == -signal.SIGKILL, "the step was passed"
    check(state, said)
    code, more = work(state, 3)
    assert code == 0
    check(state, said + more)


# What passes between two writes to PostgreSQL; the others are of files.
POSTGRES_STEPS = (
    pytest.param("accept: synced", marks=pytest.mark.full),
    "accept: rows",
    pytest.param("accept: committed", marks=pytest.mark.full),
    pytest.param("merge: rows", marks=pytest.mark.full),
    "merge: committed",
)


@pytest.mark.parametrize("step", POSTGRES_STEPS)
def test_nothing_in_a_database_is_lost_or_doubled_by_a_kill_at(
    step: str, tmp_path: Path, postgres_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FTTE_TEST_POSTGRES", postgres_database)
    state = tmp_path / "state"
    code, said = work(state, 8, f"{step}*3")
    assert code == -signal.SIGKILL, "the step was passed"
    code, more = work(state, 3)  # it waits for the lease of the one that was killed
    assert code == 0
    check(state, said + more)


def test_kills_at_steps_of_kills_are_survived(tmp_path: Path) -> None:
    """Recovery itself is killed, too."""
    said: list[str] = []
    for round_ in range(len(LOOP_STEPS)):
        step = LOOP_STEPS[(round_ * 7) % len(LOOP_STEPS)]
        said += work(tmp_path / "state", 4, f"{step}*{round_ % 3 + 1}")[1]
    check(tmp_path / "state", said)
