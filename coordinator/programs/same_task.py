"""A run goes on with the task that it began with: the user's files are compared with those of its beginning."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Mapping
from typing import Any

from exporters.identity import differences
from exporters.source_files import changed_files, source_hashes
from mobile_sdk.errors import FtteError

from ..config import Config
from ..errors import StoreError
from .export_workers import Progress, identify_task

__all__ = ["TaskComparison", "check_same_task", "task_changes"]

log = logging.getLogger(__name__)


class TaskComparison:
    """
    Compares the task of a run file with that of the run's beginning.

    Sources are compared first, which costs nothing. Only where they differ is the task loaded, in another process; the
    outcome is remembered for as long as no source changes again. Several threads may compare at once.

    Args:
        config: the run file.

    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._lock = threading.Lock()
        # Of the last time that the task was loaded: what it was compared with, its sources, and the outcome.
        self._recorded = ""
        self._sources: Mapping[str, str] = {}
        self._refused = ""

    def compare(self, recorded: Mapping[str, Any], progress: Progress) -> str:
        """
        Why the run cannot go on with the task as it is now; empty if it can.

        Args:
            recorded: the identity of the task when the run began; empty where an earlier release began it.
            progress: called with a sentence where the task must be loaded.

        """
        changed = changed_files(recorded.get("files", {}))
        if not changed:
            return ""
        with self._lock:  # whoever comes while another loads the task has its outcome
            key = json.dumps(recorded, sort_keys=True)
            if key != self._recorded or source_hashes(self._sources) != self._sources:
                progress(
                    f"{', '.join(changed)} changed since the run began: comparing the task with that of its beginning"
                )
                sources = source_hashes(recorded["files"])
                self._refused, known = self._load_and_compare(recorded)
                self._recorded, self._sources = key, {**dict.fromkeys(recorded["files"], ""), **sources, **known}
            return self._refused

    def _load_and_compare(self, recorded: Mapping[str, Any]) -> tuple[str, Mapping[str, str]]:
        """As :meth:`compare`, and the sources of which the task is made now."""
        task = self._config.run.task
        try:
            now = identify_task(task)
        except FtteError as error:
            log.warning("the run goes on with the programs of its beginning, but its task cannot be loaded: %s", error)
            return "", {}
        different = task_changes(self._config, recorded, now)
        if not different:
            log.warning(
                "the sources of %s changed since the run began; the run goes on with the model and loss of its "
                "beginning",
                task,
            )
        return different, now["files"]


def check_same_task(
    config: Config, recorded: Mapping[str, Any], progress: Progress, comparison: TaskComparison | None = None
) -> None:
    """
    Refuse to go on with a task that has changed since the run began.

    Args:
        config: the run file.
        recorded: the identity of the task when the run began; empty where an earlier release began it.
        progress: called with a sentence where the task must be loaded.
        comparison: remembers what it found before; by default, nothing is remembered.

    Raises:
        StoreError: if the task is another one.

    """
    different = (comparison or TaskComparison(config)).compare(recorded, progress)
    if different:
        raise StoreError(different)


def task_changes(config: Config, recorded: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """
    A sentence on how the task differs from that with which the run began; empty if it does not.

    Args:
        config: the run file.
        recorded: facts of the task when the run began.
        now: the same facts now.

    """
    words = differences(recorded, now) if recorded else []
    if not words:
        return ""
    return (
        f"the task {config.run.task} has changed since the run {config.run.name!r} began: {'; '.join(words)}. Its "
        f"programs and its state in {config.run.state} are those of the beginning: restore the task, or begin a new "
        "run in another state directory"
    )
