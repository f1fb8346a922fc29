"""The life of a run: which phase follows which, what each means for devices, and what ends it."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import pytest

from coordinator.errors import ConflictError, StoreUnavailable
from coordinator.evaluation.metric_watch import MetricWatch
from coordinator.loop.phases import BEFORE, Phases
from coordinator.run_state import RunState
from coordinator.scheduling.dispatcher import Dispatcher
from coordinator.simulation.virtual_time import run
from coordinator.store.records import Phase
from mobile_sdk.protocol.messages import Finished

from ..small_run import SmallRun, make_run

ALL: tuple[Phase, ...] = get_args(Phase)


class Life:
    """The phases of a run, and how often the merge loop was woken."""

    def __init__(self, small: SmallRun, state: RunState | None = None) -> None:
        self.small = small
        self.state = state or small.state()
        self.dispatcher = Dispatcher(self.state)
        self.watch = MetricWatch(small.config.evaluation, small.store.versions.all())
        self.changes = 0
        self.phases = Phases(self.state, small.config.stop, self.dispatcher, self.watch, self._changed)

    def _changed(self) -> None:
        self.changes += 1

    def publish(self, metrics: Mapping[str, float]) -> None:
        """Commit a version with these metrics."""
        versions = self.state.versions
        record = versions.commit(versions.vector, {}, metrics, [], [], 0.0)
        self.state.published(record)
        self.watch.see(record)


def test_a_phase_is_durable_with_its_reason_and_in_the_audit_log(tmp_path: Path) -> None:
    async def main() -> None:
        life = Life(make_run(tmp_path))
        await life.phases.enter("running", "started by anna", by="anna")
        assert (life.state.phase, life.state.reason) == ("running", "started by anna")
        assert life.changes == 1
        assert life.small.store.phase() == ("running", "started by anna")
        last = life.small.store.audit.entries()[-1]
        assert (last.actor, last.action, last.subject) == ("anna", "running", "run")

    run(main())


@pytest.mark.parametrize(("before", "after"), list(itertools.product(ALL, ALL)))
def test_only_the_ways_between_phases_that_there_are_can_be_gone(tmp_path: Path, before: Phase, after: Phase) -> None:
    async def main() -> None:
        life = Life(make_run(tmp_path))
        life.state.phase = before
        if before in BEFORE[after]:
            await life.phases.enter(after, "why not", by="anna")
            assert life.state.phase == after
            return
        with pytest.raises(ConflictError, match=f"the run is {before}: it cannot become {after}"):
            await life.phases.enter(after, "why not", by="anna")
        assert life.state.phase == before
        assert life.small.store.phase()[0] == "created"
        assert life.changes == 0

    run(main())


def test_a_phase_that_cannot_be_written_down_is_not_entered(tmp_path: Path) -> None:
    async def main() -> None:
        small = make_run(tmp_path)

        async def full(function: Any, *args: Any) -> Any:
            raise StoreUnavailable("the disk is full")

        life = Life(small, small.state(full))
        with pytest.raises(StoreUnavailable):
            await life.phases.enter("running", "started", by="anna")
        assert life.state.phase == "created"
        assert life.changes == 0

    run(main())


def test_a_finished_run_that_is_taken_up_again_is_not_finished_for_devices(tmp_path: Path) -> None:
    async def main() -> None:
        life = Life(make_run(tmp_path))
        await life.phases.enter("finished", "enough", by="anna")
        life.state.finish("enough", {})
        assert life.state.finished == Finished(0, "enough", {})
        await life.phases.enter("running", "once more", by="anna")
        assert life.state.finished is None
        assert life.state.buffer.has_room("phone-1")

    run(main())


def test_a_run_without_limits_does_not_end(tmp_path: Path) -> None:
    async def main() -> None:
        life = Life(make_run(tmp_path))
        await life.phases.enter("running", "started", by="anna")
        life.publish({"accuracy": 1.0})
        await asyncio.sleep(1e6)
        assert await life.phases.ended() is None
        assert await life.phases.remaining() is None

    run(main())


@pytest.mark.parametrize(
    ("stop", "metrics", "reason"),
    [
        ({"goal": 0.75}, {"accuracy": 0.8}, "the accuracy 0.8000 has reached 0.75"),
        ({"goal": 0.75}, {"loss": 0.8}, None),
        ({"accuracy": 0.75}, {"accuracy": 0.75}, "the accuracy 0.7500 has reached 0.75"),
        ({"accuracy": 0.75}, {"accuracy": 0.7499}, None),
        ({"versions": 1}, {}, "version 1 has reached the limit of 1"),
        ({"versions": 2}, {}, None),
    ],
)
def test_a_run_ends_with_the_version_that_reaches_a_limit(
    tmp_path: Path, stop: dict[str, Any], metrics: dict[str, float], reason: str | None
) -> None:
    async def main() -> None:
        life = Life(make_run(tmp_path, stop=stop))
        await life.phases.enter("running", "started", by="anna")
        assert await life.phases.ended() is None
        life.publish(metrics)
        assert await life.phases.ended() == reason

    run(main())


def test_a_regression_ends_with_the_error_that_it_was_asked_for(tmp_path: Path) -> None:
    async def main() -> None:
        watched = {"metric": "mae", "minimise": True}
        life = Life(make_run(tmp_path, evaluation=watched, stop={"goal": 2.0, "versions": 50}))
        await life.phases.enter("running", "started", by="anna")
        life.publish({"mae": 140.0})
        assert await life.phases.ended() is None
        life.publish({"mae": 1.5})
        assert await life.phases.ended() == "the mae 1.5000 has reached 2"

    run(main())


def test_a_rollback_is_no_merge_that_the_limit_of_versions_counts(tmp_path: Path) -> None:
    async def main() -> None:
        life = Life(make_run(tmp_path, stop={"versions": 2}))
        life.publish({})
        life.state.published(life.state.versions.roll_back(0, [], [], 0.0, by="anna", why="worse"))
        assert life.state.versions.newest.version == 2
        assert await life.phases.ended() is None

    run(main())


def test_a_metric_that_gets_no_better_ends_the_run(tmp_path: Path) -> None:
    async def main() -> None:
        life = Life(make_run(tmp_path, evaluation={"patience": 2}))
        for accuracy in (0.5, 0.5):
            life.publish({"accuracy": accuracy})
        assert await life.phases.ended() is None
        life.publish({"accuracy": 0.4})
        assert (await life.phases.ended() or "").startswith("accuracy has not become better than 0.5000 of version 1")

    run(main())


def test_the_time_of_a_run_begins_when_it_first_serves_and_goes_on_over_restarts(tmp_path: Path) -> None:
    async def main() -> None:
        small = make_run(tmp_path, stop={"seconds": 100})
        life = Life(small)
        await asyncio.sleep(1000)
        assert await life.phases.remaining() is None, "it was never started"
        await life.phases.enter("running", "started", by="anna")
        assert await life.phases.remaining() == 100.0
        await asyncio.sleep(60)
        small.store.close()
        again = Life(make_run(tmp_path, stop={"seconds": 100}))
        assert await again.phases.remaining() == 40.0
        assert await again.phases.ended() is None
        await asyncio.sleep(40)
        assert await again.phases.ended() == "100 s are over"

    run(main())


def test_a_run_that_an_operator_finished_has_ended_for_that_reason(tmp_path: Path) -> None:
    async def main() -> None:
        life = Life(make_run(tmp_path))
        await life.phases.enter("finished", "finished by anna", by="anna")
        assert await life.phases.ended() == "finished by anna"

    run(main())
