"""A run goes on with the task that it began with: the user's files are compared with those of its beginning."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from exporters.identity import differences
from exporters.source_files import changed_files
from mobile_sdk.errors import FtteError

from ..config import Config
from ..errors import StoreError
from .export_workers import Progress, identify_task

__all__ = ["check_same_task", "task_changes"]

log = logging.getLogger(__name__)


def check_same_task(config: Config, recorded: Mapping[str, Any], progress: Progress) -> None:
    """
    Refuse to go on with a task that has changed since the run began.

    Sources are compared first, which costs nothing. Only where they differ is the task loaded, in another process.

    Args:
        config: the run file.
        recorded: the identity of the task when the run began; empty where an earlier release began it.
        progress: called with a sentence where the task must be loaded.

    Raises:
        StoreError: if the task is another one.

    """
    changed = changed_files(recorded.get("files", {}))
    if not changed:
        return
    progress(f"{', '.join(changed)} changed since the run began: comparing the task with that of its beginning")
    try:
        now = identify_task(config.run.task)
    except FtteError as error:
        log.warning("the run goes on with the programs of its beginning, but its task cannot be loaded: %s", error)
        return
    different = task_changes(config, recorded, now)
    if different:
        raise StoreError(different)
    log.warning(
        "the sources of %s changed since the run began; the run goes on with the model and loss of its beginning",
        config.run.task,
    )


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
