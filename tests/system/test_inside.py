"""Weights that every program of a run has inside are not sent a second time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from coordinator.config import parse_config
from coordinator.programs.begin import begin_or_resume
from coordinator.programs.run_key import RunKey
from coordinator.store.sqlite import SqliteStore
from mobile_sdk.manifest import MANIFEST_FILE, Manifest

from . import conftest
from .conftest import Site


def test_a_device_trains_without_the_weights_that_its_program_has_inside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    budgets = {"small": "1MB"}
    run = {"name": "digits", "task": "exporters.zoo.digits:task", "state": "state"}
    config = parse_config({"run": run, "budgets": budgets}, tmp_path)
    store = SqliteStore(config.run.state)
    begin_or_resume(config, store, RunKey.load_or_create(config.run.state / "run.key"), 0.0, print)
    store.close()
    monkeypatch.setitem(conftest.PLANS, "budgets", budgets)
    (tmp_path / "site").mkdir()
    site = Site(tmp_path / "site", config.run.state)
    server = site.serve("[merge]\nbuffer = 1\n[stop]\nversions = 3\n")
    device = site.device("phone-1", 0)
    assert device.wait() == 0, device.output
    assert server.wait() == 0
    manifest = Manifest.from_bytes(next((site.folder / "phone-1").rglob(MANIFEST_FILE)).read_bytes())
    assert manifest.baked
    weights = next(json.loads(text) for (text,) in site.query("SELECT weights FROM versions WHERE version = 0"))
    held = {path.name for path in (site.folder / "phone-1" / "artifacts").iterdir()}
    assert weights[0]["sha256"] not in held, "the first file is what the program has inside"
    assert {ref["sha256"] for ref in weights[1:-1]} <= held, "what is frozen beside it was sent"
    accuracies = [json.loads(text)["accuracy"] for (text,) in site.query("SELECT metrics FROM versions")]
    assert accuracies[-1] > accuracies[0]
    site.close()
