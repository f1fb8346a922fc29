"""A run that does not learn says so: once in the log and the audit log, and in its status as long as it is so."""

from __future__ import annotations

import logging
import statistics

from ..background import BackgroundTasks
from ..config import Config
from ..reports.learning import PAGE, does_not_learn, likely_causes, stands_still
from ..run_state import RunState
from ..store.records import VersionRecord

__all__ = ["LearningNotice"]

log = logging.getLogger(__name__)


class LearningNotice:
    """
    Compares a run's versions with its first.

    Args:
        run: the run; its ``notice`` is set here.
        config: the run file; likely causes are found in it.
        first: version 0.

    """

    def __init__(self, run: RunState, config: Config, first: VersionRecord) -> None:
        self._run = run
        self._config = config
        self._first = first
        self._tasks = BackgroundTasks()

    def look(self) -> None:
        """There is a new version."""
        run = self._run
        notice = does_not_learn(run.history, self._first, self._config)
        if notice:
            still = stands_still(run.history, self._first, self._config)
            reports = [device.report for device in run.status().devices]
            steps = [report["steps"] for report in reports if isinstance(report.get("steps"), int)]
            causes = likely_causes(
                self._config,
                run.tiers,
                run.mean_staleness,
                still=still,
                steps=statistics.median(steps) if steps else None,
            )
            notice = f"{notice}. Likely: {'; '.join(causes)}. See {PAGE}"
            if not run.notice:
                log.warning("%s", notice)
                self._tasks.start(self._write_down(notice), "writing down that the run does not learn")
        elif run.notice:
            log.info("the run learns: versions are better than version 0 again")
        run.notice = notice

    async def _write_down(self, why: str) -> None:
        run = self._run
        await run.offload(run.store.audit.write, run.clock.wall(), "coordinator", "does-not-learn", "run", {"why": why})
