"""
Computing ahead of virtual time.

A device's training is handed in when it begins and asked for when it is due, so that meanwhile the workers compute
what will be needed first. An evaluation, for which virtual time stands still, is handed in in parts and asked for at
once. Which worker does a job, and when, changes nothing.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import heapq
import importlib
import itertools
import threading
from collections.abc import Callable, Iterator
from typing import Any

from mobile_sdk.system.spawning import SPAWN

from ...errors import CoordinatorError
from .workshop import Job, Workshop, WorkshopFiles, do_job, open_workshop

__all__ = ["Pool", "Ticket", "local_pool", "ray_pool"]

Future = concurrent.futures.Future[Any]


class Ticket:
    """A job that was handed in; what comes of it is in ``done``."""

    def __init__(self, job: Job) -> None:
        self.job: Job | None = job
        self.done: Future = concurrent.futures.Future()


class Pool:
    """
    Jobs by the virtual time at which they are due.

    Args:
        start: begins a job elsewhere.
        width: how many may be under way at once.

    """

    def __init__(self, start: Callable[[Job], Future], width: int) -> None:
        self._start = start
        self._width = width
        self._waiting: list[tuple[float, int, Ticket]] = []
        self._numbers = itertools.count()
        self._under_way = 0
        self._lock = threading.Lock()  # workers report from threads
        self.finished = 0

    def submit(self, due: float, job: Job) -> Ticket:
        """Hand a job in whose result is wanted at the virtual time ``due``."""
        ticket = Ticket(job)
        with self._lock:
            heapq.heappush(self._waiting, (due, next(self._numbers), ticket))
        self._feed()
        return ticket

    def result(self, ticket: Ticket) -> Any:
        """Wait for a job: what :meth:`Workshop.do` gave, or raised."""
        return ticket.done.result()

    def cancel(self, ticket: Ticket) -> None:
        """The result is not wanted any more."""
        with self._lock:
            ticket.job = None

    def _feed(self) -> None:
        while True:
            with self._lock:
                while self._waiting and self._waiting[0][2].job is None:
                    heapq.heappop(self._waiting)
                if not self._waiting or self._under_way >= self._width:
                    return
                ticket = heapq.heappop(self._waiting)[2]
                job, ticket.job = ticket.job, None  # its weights need not be kept
                self._under_way += 1
            if job is not None:
                self._start(job).add_done_callback(functools.partial(self._finish, ticket))

    def _finish(self, ticket: Ticket, future: Future) -> None:
        with self._lock:
            self._under_way -= 1
            self.finished += 1
        error = future.exception()
        if error is None:
            ticket.done.set_result(future.result())
        else:
            ticket.done.set_exception(error)
        self._feed()


@contextlib.contextmanager
def local_pool(files: WorkshopFiles, workers: int) -> Iterator[Pool]:
    """
    Worker processes of this machine.

    Args:
        files: what they need.
        workers: how many; with 0, jobs are done in this process when they are handed in.

    """
    if workers == 0:
        workshop = Workshop(files)

        def start(job: Job) -> Future:
            future: Future = concurrent.futures.Future()
            try:
                future.set_result(workshop.do(job))
            except Exception as error:
                future.set_exception(error)
            return future

        # One at a time, and the next only when it is done: nothing is ever under way.
        yield Pool(start, 1)
        return
    with concurrent.futures.ProcessPoolExecutor(
        workers, mp_context=SPAWN, initializer=open_workshop, initargs=(files,)
    ) as executor:
        try:
            # Twice as many as there are workers: the next job is there when one ends.
            yield Pool(lambda job: executor.submit(do_job, job), 2 * workers)
        finally:
            executor.shutdown(wait=True, cancel_futures=True)


@contextlib.contextmanager
def ray_pool(files: WorkshopFiles, address: str) -> Iterator[Pool]:
    """
    Workers of a Ray cluster, one for each of its processors; samples lie where every node can read them.

    Args:
        files: what they need.
        address: of the cluster, as ``ray.init`` takes it.

    Raises:
        CoordinatorError: if Ray is not installed or the cluster cannot be reached.

    """
    try:
        ray: Any = importlib.import_module("ray")
    except ImportError:
        raise CoordinatorError("Ray is not installed: pip install 'ftte[ray]'") from None
    try:
        ray.init(address=address, log_to_driver=False, ignore_reinit_error=True)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise CoordinatorError(f"cannot reach Ray at {address}: {error}") from error
    try:
        workshop = ray.remote(num_cpus=1)(Workshop)
        actors = [workshop.remote(files) for _ in range(max(1, int(ray.cluster_resources().get("CPU", 1))))]
        turn = itertools.cycle(actors)
        yield Pool(lambda job: next(turn).do.remote(job).future(), 2 * len(actors))
    finally:
        ray.shutdown()
