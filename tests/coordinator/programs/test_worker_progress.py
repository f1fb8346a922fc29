"""Whoever waits for a search hears of it, from another process."""

from __future__ import annotations

import concurrent.futures
import multiprocessing

from coordinator.programs.worker_progress import SECONDS, hear_workers, say_now_and_then, speak_through


def _work() -> None:
    time = [0.0]
    say = say_now_and_then(lambda: time[0])
    for done in range(6):
        time[0] += SECONDS / 2
        say(f"sensitivity: {done} of 6")


def test_what_a_worker_says_arrives_now_and_then() -> None:
    heard: list[str] = []
    context = multiprocessing.get_context("spawn")
    with (
        hear_workers(context, heard.append) as said,
        concurrent.futures.ProcessPoolExecutor(1, context, speak_through, (said,)) as pool,
    ):
        pool.submit(_work).result()
    assert heard == ["sensitivity: 1 of 6", "sensitivity: 3 of 6", "sensitivity: 5 of 6"]


def test_where_nobody_listens_nothing_is_said() -> None:
    _work()
