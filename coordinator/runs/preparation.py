"""
What a process has ready of the runs that another one leads, so that it can lead them at once.

Programs and held-out data are named by their hashes and a task's sources are compared by theirs: what has changed by
the time of the takeover is made anew, the rest is there.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Sequence

from mobile_sdk.errors import FtteError
from mobile_sdk.weights import map_weights

from ..config import Config
from ..evaluation.central_process import EvaluationProcess, SpareProcess
from ..merge.from_config import safe_gain, staleness_policy
from ..programs.same_task import TaskComparison
from ..programs.tiers import Tier, load_tiers, unpacked_manifest, unpacked_program
from ..store.interface import Store
from ..store.open import in_postgres, open_store
from ..updates.buffer_size import AdaptiveSize

__all__ = ["Preparation", "Preparations", "load_evaluator"]

log = logging.getLogger(__name__)

# How often a process that stands by looks what has changed.
LOOK_SECONDS = 10.0


class Preparation:
    """
    What is ready of one run. Several threads may use it.

    Args:
        config: the run file.

    ``comparison`` remembers whether the task is that of the run's beginning.
    """

    def __init__(self, config: Config) -> None:
        self.comparison = TaskComparison(config)
        self._config = config
        self._lock = threading.Lock()
        self._spare: SpareProcess | None = None
        self._evaluation: EvaluationProcess | None = None
        self._evaluates: tuple[str, ...] = ()
        self._taken = False

    def begin(self) -> None:
        """Load what is needed whatever the run is. Blocks."""
        merge = self._config.merge
        with self._lock:
            if self._spare is None and self._evaluation is None and not self._taken:
                self._spare = SpareProcess()
        # It is remembered, and a leader would take a while for it.
        AdaptiveSize(staleness_policy(merge.staleness).by_age, safe_gain(merge), merge.smallest)

    def look(self, store: Store) -> None:
        """
        Get ready what the run has by now. Blocks, and for longer where the task's sources have changed.

        Args:
            store: the run's; nothing is written to it.

        """
        run = store.run()
        if run is None:
            return
        tiers = load_tiers(store, self._config.training.settings.state_copies)
        for tier in tiers:
            for ref in (tier.record.program, *([tier.record.graph] if tier.record.graph else [])):
                store.artifacts.path(ref.sha256)  # which is a copy on this machine from now on
        newest = store.versions.latest()
        for weights in newest.weights[:-1]:  # the last are those that are trained, and others at each version
            store.artifacts.path(weights.sha256)
        begun: EvaluationProcess | None = None
        with self._lock:
            if not self._taken and (key := _evaluates(store, tiers[-1])) != self._evaluates:
                if self._evaluation is not None:
                    self._evaluation.close()
                self._evaluation, self._evaluates = load_evaluator(store, tiers[-1], self._spare), key
                if self._evaluation is not None:
                    self._spare = None
                    self._evaluation.start()
                    begun = self._evaluation
        if begun is not None:  # the first time takes longest: memory is mapped, threads are started
            paths = [store.artifacts.verified(weights.sha256) for weights in newest.weights]
            layout = tiers[-1].manifest.layout
            begun(layout.flatten(map_weights(layout, paths)))
        refused = self.comparison.compare(run.plans.get("identity", {}), log.info)
        if refused:
            log.error("this process cannot take over: %s", refused)

    def take_evaluation(self, store: Store, tier: Tier) -> EvaluationProcess | None:
        """The run's central evaluation, which belongs to the caller; none if the task has no held-out data."""
        with self._lock:
            self._taken = True
            evaluation, spare, self._evaluation, self._spare = self._evaluation, self._spare, None, None
            if evaluation is not None and _evaluates(store, tier) == self._evaluates:
                return evaluation
        if evaluation is not None:
            evaluation.close()
        made = load_evaluator(store, tier, spare)
        if made is None and spare is not None:
            spare.close()
        return made

    def close(self) -> None:
        """End the processes that nobody has taken."""
        with self._lock:
            self._taken = True
            evaluation, spare, self._evaluation, self._spare = self._evaluation, self._spare, None, None
        for each in (evaluation, spare):
            if each is not None:
                each.close()


class Preparations:
    """
    Prepares runs in a thread, from :meth:`start` on, until they are closed.

    Args:
        configs: the run files. Of those whose state is in a directory nothing can be prepared: one process uses it.

    """

    def __init__(self, configs: Sequence[Config]) -> None:
        self._configs = {config.run.name: config for config in configs if in_postgres(config)}
        self._each = {name: Preparation(config) for name, config in self._configs.items()}
        self._ending = threading.Event()
        self._looking: threading.Thread | None = None
        self._lock = threading.Lock()

    @property
    def started(self) -> bool:
        """Whether this process has stood by."""
        return self._looking is not None

    def of(self, run: str) -> Preparation | None:
        """That of one run, if its state is in a database."""
        return self._each.get(run)

    def start(self) -> None:
        """Another process leads: prepare from now on. Returns at once; nothing happens the second time."""
        with self._lock:
            if self._each and self._looking is None and not self._ending.is_set():
                self._looking = threading.Thread(target=self._look, name="ftte-standby", daemon=True)
                self._looking.start()

    def _look(self) -> None:
        while not self._ending.is_set():
            for name, preparation in self._each.items():
                if self._ending.is_set():
                    return
                try:
                    preparation.begin()
                    with contextlib.closing(open_store(self._configs[name], leading=False)) as store:
                        preparation.look(store)
                except (FtteError, OSError) as error:  # whoever leads will say so, or it is over by then
                    log.info("the run %s cannot be prepared for a takeover just now: %s", name, error)
                except Exception as error:  # the next look, and other runs, are not to suffer
                    log.error("the run %s is not prepared for a takeover: %s: %s", name, type(error).__name__, error)
            self._ending.wait(LOOK_SECONDS)

    def close(self) -> None:
        """Prepare nothing any more, and end the processes that nobody has taken. Does not wait for a look."""
        self._ending.set()
        for preparation in self._each.values():
            preparation.close()


def load_evaluator(store: Store, tier: Tier, spare: SpareProcess | None = None) -> EvaluationProcess | None:
    """The run's central evaluation, in a program of ``tier``; none if the task has no held-out data."""
    run = store.run()
    if run is None or not run.evaluation:
        return None
    manifest = unpacked_manifest(store.artifacts, tier.record)
    program = unpacked_program(store.artifacts, tier.record)
    return EvaluationProcess(manifest, program, store.artifacts.verified(run.evaluation).read_bytes(), spare)


def _evaluates(store: Store, tier: Tier) -> tuple[str, ...]:
    """Names what central evaluation is made of; empty where there is none."""
    run = store.run()
    if run is None or not run.evaluation:
        return ()
    return tier.record.manifest.sha256, tier.record.program.sha256, run.evaluation
