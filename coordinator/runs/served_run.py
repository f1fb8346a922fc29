"""One run, opened: its state directory, its programs, its evaluation, and the coordinator on top of them."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from typing import Any

from mobile_sdk import safetensors
from mobile_sdk.clock import SystemClock
from mobile_sdk.durable_files import write_durably
from mobile_sdk.errors import FtteError
from mobile_sdk.protocol.messages import Finished
from mobile_sdk.protocol.texts import printable

from ..background import BackgroundTasks
from ..config import Config
from ..errors import StoreError, StoreUnavailable, Superseded
from ..evaluation.central_process import EvaluationProcess
from ..loop.coordinator import Coordinator
from ..programs.begin import begin_or_resume, with_found
from ..programs.export_workers import Progress
from ..programs.run_key import RunKey
from ..programs.signing import check_key
from ..reports.summary import summarise
from ..run_state import HISTORY
from ..store.interface import Store
from ..store.open import in_postgres, open_store
from ..tracking.from_config import open_trackers
from ..tracking.trackers import Trackers
from ..updates.buffer_size import LOOKED_BACK_ON
from ..updates.partial_uploads import Uploads
from .preparation import Preparations, load_evaluator

__all__ = ["ServedRun", "open_run"]

log = logging.getLogger(__name__)


# A run that has stopped is tried again, after longer and longer, and given up after so many tries without a merge.
ATTEMPTS = 8
RETRY_SECONDS = 1.0
LONGEST_RETRY_SECONDS = 300.0

# How often a run looks whether it is led here still.
LOOK_SECONDS = 0.5

# What a predecessor has left is removed so long after a run is served.
COLLECT_SECONDS = 10.0

# Characters of an error that are shown.
MOST_WORDS = 500


class ServedRun:
    """
    A run that is served.

    ``coordinator`` is the run at work, ``finished`` how it ended, once it has. With ``left_over`` its store is tidied
    up once it is served.
    """

    def __init__(
        self,
        config: Config,
        store: Store,
        coordinator: Coordinator,
        evaluate: EvaluationProcess | None,
        trackers: Trackers | None = None,
        *,
        left_over: bool = False,
    ) -> None:
        self.config = config
        self.store = store
        self.coordinator = coordinator
        self.finished: Finished | None = None
        self._evaluate = evaluate
        self._trackers = trackers
        self._left_over = left_over
        self._tasks = BackgroundTasks()
        self._task: asyncio.Task[None] | None = None
        self._ended = asyncio.Event()

    @property
    def failed(self) -> bool:
        """Whether an error has stopped the run, for now or for good."""
        gone = self._task is not None and self._task.done() and self.finished is None
        return gone or bool(self.coordinator.state.stopped)

    @property
    def name(self) -> str:
        """The run's name."""
        return self.config.run.name

    def start(self) -> None:
        """Merge from now on, until the run has ended; again, if it was taken up after that."""
        if self._task is None or self._task.done():
            self._ended.clear()
            self.finished = None
            self._task = asyncio.create_task(self._run())
        if self._left_over:
            self._left_over = False
            self._tasks.start(self._collect(), f"removing what nobody needs of the run {self.name}")

    async def _collect(self) -> None:
        await asyncio.sleep(COLLECT_SECONDS)  # devices come back first
        async with self.coordinator.version_maker.idle():
            await asyncio.to_thread(self.store.collect)

    async def _run(self) -> None:
        try:
            self.finished = await self._merge_until_ended()
            await asyncio.to_thread(self.save, self.summary())
        finally:
            self._ended.set()

    async def _merge_until_ended(self) -> Finished:
        """
        The merge loop, begun again after an unexpected error, from what the store says.

        Raises:
            Superseded: if another process leads the run by now.
            Exception: what the loop raised, if it did so ``ATTEMPTS`` times with no merge in between.

        """
        state, failures, merges = self.coordinator.state, 0, -1
        while True:
            try:
                if failures:
                    await self.coordinator.version_maker.recover()
                return await self._while_leading()
            except Superseded as error:
                state.stopped = f"stopped, because {_sentence(error)}"
                raise
            except Exception as error:
                passing = isinstance(error, StoreUnavailable)
                if not passing and await asyncio.to_thread(self._is_led_elsewhere):
                    # What a successor has merged is another's already: that is no error of this run.
                    superseded = self._superseded()
                    state.stopped = f"stopped, because {_sentence(superseded)}"
                    raise superseded from error
                if state.versions.merges > merges:
                    failures, merges = 0, state.versions.merges
                # A disk that is full, or a database that is away, is waited for as long as it takes.
                failures = min(failures, ATTEMPTS - 2) + 1 if passing else failures + 1
                state.stopped = f"stopped, because {_sentence(error)}"
                unforeseen = failures == 1 and not isinstance(error, FtteError)
                log.error("the run %s has %s", self.name, state.stopped, exc_info=error if unforeseen else None)
                if failures == ATTEMPTS:
                    raise
                wait = min(RETRY_SECONDS * 2 ** (failures - 1), LONGEST_RETRY_SECONDS)
                log.info("the run %s is tried again in %g s", self.name, wait)
                await asyncio.sleep(wait)

    async def _while_leading(self) -> Finished:
        """
        The merge loop; it ends as soon as another process leads, even if there is nothing to merge.

        Raises:
            Superseded: then.

        """
        work = asyncio.create_task(self.coordinator.run())
        try:
            while not work.done():
                if self.store.lease.lost:
                    raise self._superseded()
                await asyncio.wait([work], timeout=LOOK_SECONDS)
            return work.result()
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)

    def _is_led_elsewhere(self) -> bool:
        """Whether another process leads by now, as far as the store can say. Blocks."""
        try:
            return self.store.lease.look()
        except StoreError:
            return False

    def _superseded(self) -> Superseded:
        return Superseded(f"another process leads the run {self.name} by now: this one stops")

    async def update_summary(self) -> None:
        """Write ``summary.json`` again, if there is one: a device that was withdrawn is not to be found in it."""
        if (self.config.run.state / "summary.json").exists():
            await asyncio.to_thread(self.save, self.summary())

    async def ended(self) -> None:
        """Wait for the end of the run; raises what went wrong."""
        await self._ended.wait()
        if self._task is not None:
            await self._task

    def summary(self) -> dict[str, Any]:
        """The run's summary as JSON values."""
        reason = self.finished.reason if self.finished else self.coordinator.state.reason
        return {"ended": reason, **summarise(self.coordinator.state)}

    def save(self, summary: dict[str, Any]) -> None:
        """Write ``summary.json`` and the newest weights, ``weights.safetensors``, into the state directory."""
        run, folder = self.coordinator.state, self.config.run.state
        weights = safetensors.dumps(
            run.layout.views(run.versions.vector), {"version": str(run.versions.newest.version)}
        )
        write_durably(folder / "weights.safetensors", weights)
        write_durably(folder / "summary.json", json.dumps(summary, indent=2).encode() + b"\n")

    async def close(self) -> None:
        """Let the merge that is under way end, and give the state directory back."""
        self._tasks.close()
        async with self.coordinator.version_maker.idle():
            if self._task is not None:
                self._task.cancel()
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)
        self.coordinator.close()
        await asyncio.to_thread(self.discard)

    def discard(self) -> None:
        """Give back what was opened and is not served. Blocks."""
        if self._evaluate is not None:
            self._evaluate.close()
        if self._trackers is not None:
            self._trackers.close()
        self.store.close()


def _sentence(error: Exception) -> str:
    """An error on one line, as operators read it."""
    words = printable(str(error))[:MOST_WORDS]
    return words if isinstance(error, FtteError) and words else f"of {type(error).__name__}: {words}"


def open_run(
    config: Config,
    progress: Progress,
    giving_up: threading.Event | None = None,
    preparations: Preparations | None = None,
) -> ServedRun:
    """
    Open a state directory, and plan the run's programs if that was not done yet. Blocks, for a minute if it plans.

    Args:
        config: the run file.
        progress: called with a sentence as planning goes on.
        giving_up: where another process leads the run in a database, wait to take over, until this is set; without it,
            do not wait.
        preparations: get ready meanwhile what a leader needs, of this run and of others; by default, of this run.

    Raises:
        CoordinatorError: if the run file or the state directory cannot be used.
        ExportError: if a program cannot be made.

    """
    if giving_up is None:
        return _open_run(config, progress, None, Preparations([]))
    if preparations is not None:
        return _open_run(config, progress, giving_up, preparations)
    own = Preparations([config])
    try:
        return _open_run(config, progress, giving_up, own)
    finally:
        own.close()


def _open_run(
    config: Config, progress: Progress, giving_up: threading.Event | None, preparations: Preparations
) -> ServedRun:
    preparation = preparations.of(config.run.name)
    if preparation is not None:
        preparation.begin()

    def forget_parts() -> None:
        # Devices hand their updates in at the other process: no part of one that came here is to outlive it.
        Uploads(config.run.state / "incoming").forget_all_but(())

    store = open_store(config, standby=giving_up, waits=preparations.start, stands_by=forget_parts)
    try:
        with store.read_ahead(versions=HISTORY, updates=LOOKED_BACK_ON):
            check_key(store, config.run.state)
            key = RunKey.load_or_create(config.run.state / "run.key")
            comparison = None if preparation is None else preparation.comparison
            tiers = begin_or_resume(config, store, key, SystemClock().wall(), progress, comparison)
            config = with_found(config, store, tiers[0].manifest.metrics)
            # The largest tier was planned for the least memory pressure; every tier evaluates alike.
            load = load_evaluator if preparation is None else preparation.take_evaluation
            evaluate = load(store, tiers[-1])
            if evaluate is not None:
                evaluate.start()
            trackers = open_trackers(config, ("loss", *tiers[0].manifest.metrics), config.run.state / "history")
            coordinator = Coordinator(config, store, key, tiers, evaluate, trackers=trackers)
        left_over = giving_up is not None and in_postgres(config)
        return ServedRun(config, store, coordinator, evaluate, trackers, left_over=left_over)
    except BaseException:
        store.close()
        raise
