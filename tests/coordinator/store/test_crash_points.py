"""Each named instant is passed, once for each thing that it is about: kills at it test what they say."""

from __future__ import annotations

import os
import runpy
import signal
from pathlib import Path

import pytest

from coordinator.store import crash_points
from coordinator.store.crash_points import LOOP_STEPS
from coordinator.store.sqlite import SqliteStore

from .crash_worker import BUFFER, GROUP, accept, begin, merge

# Passes of one process that begins a run, accepts two groups, merges one buffer, and prunes version 0.
ARTIFACTS = 3 + 1  # manifest, program, version 0; version 1
PASSES = {
    "accept: written": 2,
    "accept: synced": 2,
    "accept: rows": 2,
    "accept: committed": 2,
    "assign: committed": 2 * GROUP,
    "artifact: written": ARTIFACTS,
    "artifact: synced": ARTIFACTS,
    "artifact: named": ARTIFACTS,
    "merge: version written": 1,
    "merge: rows": 1,
    "merge: committed": 1,
    "erase: one segment": 1,
    "erase: done": 1,
    "prune: committed": 0,
    "collect: one file": 0,
}


def test_every_step_is_counted_below() -> None:
    assert tuple(PASSES) == LOOP_STEPS
    assert BUFFER <= 2 * GROUP < 2 * BUFFER, "two groups fill one buffer"


@pytest.mark.parametrize("step", LOOP_STEPS)
def test_a_step_is_passed_as_often_as_what_it_is_about_happens(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kills: list[int] = []
    monkeypatch.setattr(os, "kill", lambda process, number: kills.append(number))
    monkeypatch.setattr(crash_points, "_label", step)
    monkeypatch.setattr(crash_points, "_left", 1_000_000)
    store = SqliteStore(tmp_path / "state")
    begin(store)
    accept(store)
    accept(store)
    merge(store)
    store.close()
    assert 1_000_000 - crash_points._left == PASSES[step]
    assert kills == []


@pytest.mark.parametrize(("asked", "where"), [("", ("", 1)), ("a: b", ("a: b", 1)), ("a: b*3", ("a: b", 3))])
def test_the_environment_names_a_step_and_maybe_which_of_its_passes(
    monkeypatch: pytest.MonkeyPatch, asked: str, where: tuple[str, int]
) -> None:
    monkeypatch.setenv("FTTE_CRASH_AT", asked)
    found = runpy.run_path(crash_points.__file__)
    assert (found["_label"], found["_left"]) == where


def test_the_process_is_killed_at_the_pass_that_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    kills: list[int] = []
    monkeypatch.setattr(os, "kill", lambda process, number: kills.append(number))
    monkeypatch.setattr(crash_points, "_label", "merge: rows")
    monkeypatch.setattr(crash_points, "_left", 2)
    crash_points.step("merge: committed")
    crash_points.step("merge: rows")
    assert kills == []
    crash_points.step("merge: rows")
    assert kills == [signal.SIGKILL]
