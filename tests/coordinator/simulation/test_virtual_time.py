"""Virtual time."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from coordinator.simulation.virtual_time import START, Stalled, VirtualClock, offload, run


def test_a_year_of_waiting_takes_no_time() -> None:
    """Time jumps to the next timer."""

    async def main() -> float:
        await asyncio.sleep(365 * 86400)
        return asyncio.get_running_loop().time()

    began = time.monotonic()
    assert run(main()) == pytest.approx(365 * 86400)
    assert time.monotonic() - began < 60


def test_things_happen_in_the_order_of_virtual_time_and_then_of_asking() -> None:
    """Equal times keep the order in which they were asked for."""
    happened: list[str] = []

    async def after(seconds: float, name: str) -> None:
        await asyncio.sleep(seconds)
        happened.append(name)

    async def main() -> None:
        await asyncio.gather(*(after(s, n) for s, n in [(3.0, "d"), (1.0, "a"), (2.0, "b"), (2.0, "c")]))

    run(main())
    assert happened == ["a", "b", "c", "d"]


def test_a_thread_holds_virtual_time() -> None:
    """A timer that is due in a moment waits for work outside the loop, however long that takes."""
    order: list[str] = []
    tick = threading.Event()

    def work() -> None:
        tick.wait(30)
        order.append("work")

    async def main() -> float:
        loop = asyncio.get_running_loop()
        loop.call_later(0.001, lambda: order.append("timer"))
        loop.call_soon(tick.set)
        await asyncio.to_thread(work)
        before = loop.time()
        await asyncio.sleep(1)
        return before

    assert run(main()) == 0.0
    assert order == ["work", "timer"]


def test_offloaded_calls_take_no_virtual_time() -> None:
    """The simulator's own offload calls at once."""

    async def main() -> tuple[int, float]:
        return await offload(sum, [1, 2]), asyncio.get_running_loop().time()

    assert run(main()) == (3, 0.0)


def test_the_clock_follows_the_loop() -> None:
    """Both of its times are virtual."""

    async def main() -> tuple[float, float]:
        clock = VirtualClock(asyncio.get_running_loop())
        await asyncio.sleep(90)
        return clock.monotonic(), clock.wall()

    assert run(main()) == (90.0, START + 90.0)


def test_timeouts_are_virtual() -> None:
    """The deadlines of asyncio need nothing of us."""

    async def main() -> float:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3600):
                await asyncio.Event().wait()
        return asyncio.get_running_loop().time()

    assert run(main()) == pytest.approx(3600)


def test_waiting_for_ever_is_an_error() -> None:
    """Where a real program would hang, a simulation says so."""

    async def main() -> None:
        await asyncio.Event().wait()

    with pytest.raises(Stalled, match="nothing is due"):
        run(main())
