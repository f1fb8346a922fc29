"""Work that nobody awaits is kept until it ends, and whatever it raises is logged once."""

from __future__ import annotations

import asyncio
import logging

import pytest

from coordinator.background import BackgroundTasks
from coordinator.errors import StoreUnavailable
from coordinator.simulation.virtual_time import run
from mobile_sdk.net.connection import ConnectionLost


async def fail(error: Exception) -> None:
    raise error


@pytest.mark.parametrize(
    ("error", "level", "words"),
    [
        (ConnectionLost("the link broke"), logging.DEBUG, "telling phone-1: the device left before: the link broke"),
        (StoreUnavailable("the disk is full"), logging.ERROR, "telling phone-1 has to wait: the disk is full"),
        (KeyError("phone-1"), logging.ERROR, "telling phone-1 failed"),
    ],
)
def test_what_a_task_raises_is_one_line(
    error: Exception, level: int, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "coordinator.background")

    async def main() -> None:
        tasks = BackgroundTasks()
        tasks.start(fail(error), "telling phone-1")
        await asyncio.sleep(1)
        assert len(tasks) == 0

    run(main())
    records = [record for record in caplog.records if record.name == "coordinator.background"]
    assert [(record.levelno, record.getMessage()) for record in records] == [(level, words)]
    assert bool(records[0].exc_info) == isinstance(error, KeyError), "a traceback for a mistake of ours alone"


def test_closing_cancels_what_still_runs() -> None:
    async def main() -> None:
        tasks, ended = BackgroundTasks(), []

        async def wait() -> None:
            try:
                await asyncio.sleep(1000)
            finally:
                ended.append(asyncio.get_running_loop().time())

        tasks.start(wait(), "waiting")
        await asyncio.sleep(1)
        assert len(tasks) == 1
        tasks.close()
        await asyncio.sleep(1)
        assert ended == [1.0]

    run(main())
