"""What is too old is removed: weights of versions, unfinished uploads, assignments that came to nothing."""

from __future__ import annotations

import logging
import math

from ..config import Config
from ..errors import StoreUnavailable
from ..evaluation.metric_watch import MetricWatch
from ..run_state import RunState
from ..versions.retention import prune

__all__ = ["Housekeeping"]

log = logging.getLogger(__name__)

# Old versions are looked for so often at the most.
PRUNE_SECONDS = 1.0

# Part of an update whose device has not come back for so long is removed; that is looked for so often at the most.
UPLOAD_SECONDS = 86_400.0
EXPIRE_SECONDS = 600.0

# Assignments that came to nothing are remembered for so long, so that a late device hears what became of its own.
ASSIGNMENT_SECONDS = 86_400.0


class Housekeeping:
    """
    Keeps a run's state small.

    Args:
        run: the run.
        config: says what is kept (``[retention]``, ``merge.keep_updates``).
        watch: knows the best version, which is kept.

    """

    def __init__(self, run: RunState, config: Config, watch: MetricWatch) -> None:
        self._run = run
        self._config = config
        self._watch = watch
        self._pruned_at = -math.inf
        self._expired_at = -math.inf

    async def tidy(self, *, now: bool = False) -> None:
        """
        Remove what is too old; not at every version, where they follow each other fast.

        Args:
            now: whatever was removed last.

        """
        run = self._run
        if not now and run.clock.monotonic() < self._pruned_at + PRUNE_SECONDS:
            return
        self._pruned_at = run.clock.monotonic()
        first = self._config.merge.keep_updates
        pruned = await run.offload(
            lambda: prune(run.store, self._config.retention, self._watch.best, run.clock.wall(), first=first)
        )
        if pruned:
            run.versions.forget(pruned)
            log.info("the weights of %d older versions are removed", len(pruned))
        if now or run.clock.monotonic() >= self._expired_at + EXPIRE_SECONDS:
            self._expired_at = run.clock.monotonic()
            await run.offload(run.uploads.expire, run.clock.wall() - UPLOAD_SECONDS)
            await run.offload(run.store.assignments.prune, run.clock.wall() - ASSIGNMENT_SECONDS)

    async def finish(self) -> None:
        """The run has ended: nothing is on its way any more."""
        try:
            await self.tidy(now=True)
            await self._run.offload(self._run.uploads.expire, math.inf)
        except (OSError, StoreUnavailable) as error:
            log.error("old versions and unfinished uploads keep their files for now: %s", error)
