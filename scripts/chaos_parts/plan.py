"""A run that has begun, for trials that start from it."""

from __future__ import annotations

import time
from pathlib import Path

from coordinator.config import parse_config
from coordinator.programs.begin import begin_or_resume
from coordinator.programs.run_key import RunKey
from coordinator.store.sqlite import SqliteStore

__all__ = ["plan_run"]

PLANS = {
    "run": {"name": "digits", "task": "exporters.zoo.digits:task", "state": "state"},
    "budgets": {"small": "1MB", "large": "5MB"},
}


def plan_run(folder: Path) -> Path:
    """Begin the run ``digits`` with two tiers in a new folder; returns its state directory."""
    folder.mkdir(parents=True, exist_ok=True)
    config = parse_config(PLANS, folder)
    store = SqliteStore(config.run.state)
    try:
        begin_or_resume(config, store, RunKey.load_or_create(config.run.state / "run.key"), time.time(), print)
    finally:
        store.close()
    return config.run.state
