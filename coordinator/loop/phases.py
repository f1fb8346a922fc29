"""The life of a run: its phases, and the rules that end it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence

from ..config import StopSection
from ..errors import ConflictError
from ..evaluation.metric_watch import MetricWatch
from ..run_state import RunState
from ..scheduling.dispatcher import Dispatcher
from ..store.records import Phase

__all__ = ["Phases"]

log = logging.getLogger(__name__)

# For each phase, those from which a run can get into it. A finished run can be taken up again.
BEFORE: Mapping[Phase, Sequence[Phase]] = {
    "created": (),
    "running": ("created", "paused", "draining", "finished"),
    "paused": ("running", "draining"),
    "draining": ("running", "paused"),
    "finished": ("created", "running", "paused", "draining"),
}


class Phases:
    """
    The phase of one run.

    Args:
        run: the run; its ``phase`` and ``reason`` are set here.
        section: when the run has ended.
        dispatcher: gives out work while the run is running, and sends devices away otherwise.
        watch: says whether the watched metric has reached its goal, or does not get better any more.
        changed: called after every change, to wake the merge loop.

    """

    def __init__(
        self,
        run: RunState,
        section: StopSection,
        dispatcher: Dispatcher,
        watch: MetricWatch,
        changed: Callable[[], None],
    ) -> None:
        self._run = run
        self._section = section
        self._dispatcher = dispatcher
        self._watch = watch
        self._changed = changed

    async def enter(self, phase: Phase, reason: str, *, by: str) -> None:
        """
        Bring the run into another phase; durable when this returns.

        Args:
            phase: where the run shall stand.
            reason: a sentence for the operator, kept with the phase.
            by: who decided it, for the audit log.

        Raises:
            ConflictError: if there is no way from the present phase to that one.
            StoreUnavailable: if it cannot be written down just now; the run stays in its phase.

        """
        run = self._run
        if run.phase not in BEFORE[phase]:
            raise ConflictError(f"the run is {run.phase}: it cannot become {phase}")
        await run.offload(lambda: run.store.set_phase(phase, reason, run.clock.wall(), by=by))
        run.finished = None
        run.buffer.open()
        run.phase, run.reason = phase, reason
        log.info("the run is %s: %s", phase, reason)
        if phase == "running":
            self._dispatcher.dispatch()
        elif phase == "finished":
            self._dispatcher.release()  # the end is announced in a moment: who is sent away before would not hear of it
        else:
            self._dispatcher.disperse(f"the run is {phase}")
        self._changed()

    async def ended(self) -> str | None:
        """Why the run has ended; :obj:`None` while it has not."""
        if self._run.phase == "finished":
            return self._run.reason
        return await self.reached()

    async def reached(self) -> str | None:
        """Which limit of ``[stop]``, or the end of ``evaluation.patience``, the run has reached, if any."""
        remaining = await self.remaining()
        if remaining is not None and remaining <= 0:
            return f"{self._section.seconds:g} s are over"
        return self._reached()

    async def remaining(self) -> float | None:
        """Seconds until the run's time is over; :obj:`None` if it has no limit or was never started."""
        limit, now = self._section.seconds, self._run.clock.wall()
        if limit is None or self._run.phase == "created":
            return None
        return float(await self._run.offload(self._run.store.started_at, now)) + limit - now

    def _reached(self) -> str | None:
        """Why the newest version is the last, if it is."""
        stop, newest = self._section, self._run.versions.newest
        if stop.goal is not None and (reason := self._watch.reached(stop.goal, newest.metrics)):
            return reason
        accuracy = newest.metrics.get("accuracy", 0.0)
        if stop.accuracy is not None and accuracy >= stop.accuracy:
            return f"the accuracy {accuracy:.4f} has reached {stop.accuracy:g}"
        if stop.versions is not None and self._run.versions.merges >= stop.versions:
            return f"version {newest.version} has reached the limit of {stop.versions}"
        if stop.updates is not None and self._run.updates_merged >= stop.updates:
            return f"{self._run.updates_merged} merged updates have reached the limit of {stop.updates}"
        return self._watch.exhausted()
