"""Machines whose processes end at any instant: any event-loop iteration, file operation or SQL statement."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import contextvars
import errno
import random
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

from coordinator.errors import Superseded
from coordinator.simulation.virtual_time import START, VirtualLoop

from .disk import Disk
from .interposer import Interposer, PowerCut

__all__ = ["CampaignLoop", "Machine", "MachineClock", "running"]

T = TypeVar("T")


class _Process:
    """One life of a machine's process."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.alive = True


_OWNER: contextvars.ContextVar[_Process | None] = contextvars.ContextVar("owner", default=None)


def running() -> Machine | None:
    """The machine whose process this is; none outside of all."""
    process = _OWNER.get()
    return process.machine if process is not None else None


# What each kind of trouble does to which operations.
_TROUBLES = {
    "full": (errno.ENOSPC, "No space left on device", ("open", "write", "mkdir", "sql", "commit")),
    "readonly": (errno.EROFS, "Read-only file system", ("open", "write", "mkdir", "rename", "unlink", "sql", "commit")),
    "eio": (errno.EIO, "Input/output error", ("open", "write", "sync", "sync folder", "rename", "sql", "commit")),
}
# Of operations under a disk that fails now and then.
_EIO_SHARE = 0.3

# Iterations of the loop at one instant, and in all, of a federation that gets nowhere.
MOST_AT_ONCE = 20_000
MOST_ITERATIONS = 500_000

# A cut that was to come at an operation comes after so many seconds at the latest.
_PATIENCE = 5.0


class CampaignLoop(VirtualLoop):
    """
    Virtual time, no threads, and every task belongs to the machine that started it.

    ``stuck`` says why the loop has stopped itself, if it has.
    """

    def __init__(self) -> None:
        super().__init__()
        self.iterations = 0
        self.stuck = ""
        self._at_once = 0
        self._last = 0.0
        self.watched: list[Machine] = []
        self.unexpected: list[str] = []
        self.set_task_factory(self._make_task)
        self.set_exception_handler(self._report)

    def run_in_executor(self, executor: Any, func: Callable[..., T], *args: Any) -> asyncio.Future[T]:  # type: ignore[override]
        """At once: a thread would let the order of things depend on the machine that simulates."""
        future: asyncio.Future[T] = self.create_future()
        try:
            future.set_result(func(*args))
        except (StopIteration, concurrent.futures.CancelledError):
            raise
        except BaseException as error:
            future.set_exception(error)
        return future

    def _run_once(self) -> None:
        self.iterations += 1
        self._at_once = self._at_once + 1 if self.time() == self._last else 0
        self._last = self.time()
        if not self.stuck and (self._at_once > MOST_AT_ONCE or self.iterations > MOST_ITERATIONS):
            self.stuck = f"{self._at_once} iterations in one instant, {self.iterations} in all"
            self.stop()
        for machine in self.watched:
            if machine.counts:
                machine.iterated()
        super()._run_once()  # type: ignore[misc]

    def _make_task(self, loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.Task(coroutine, loop=loop, **options)
        context = options.get("context")
        owner = context.get(_OWNER) if context is not None else _OWNER.get()
        if owner is not None:
            owner.machine.tasks[task] = None
            task.add_done_callback(owner.machine.tasks.pop)
        return task

    def call_at(  # type: ignore[override]
        self, when: float, callback: Any, *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        """As in any loop; a timer ends with the process that set it."""
        owner = context.get(_OWNER) if context is not None else _OWNER.get()
        if owner is None:
            return super().call_at(when, callback, *args, context=context)

        def fire() -> None:
            if owner.alive:
                callback(*args)

        return super().call_at(when, fire, context=context)

    def _report(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if not isinstance(error, PowerCut | Superseded):  # the latter ends a process
            self.unexpected.append(f"{context.get('message')}: {error!r}")


class MachineClock:
    """
    A machine's clocks: time that goes on, and a wall clock that can be set.

    ``shift`` is what the wall clock is ahead of the true time.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.shift = 0.0

    def monotonic(self) -> float:
        return self._loop.time()

    def wall(self) -> float:
        return START + self._loop.time() + self.shift


class Machine:
    """
    A computer with a disk, on which one process runs at a time.

    Args:
        name: for the trace.
        root: its folder.
        loop: on which everything runs.
        interposer: stands before its disk.
        rng: draws what the machine's faults do.
        note: writes a line of the trace.

    ``tasks`` are those of the process, ``ended`` is set when a fault has ended it, ``operations`` counts what it did
    with its disk.
    """

    def __init__(
        self,
        name: str,
        root: Path,
        loop: CampaignLoop,
        interposer: Interposer,
        rng: random.Random,
        note: Callable[[str], None],
    ) -> None:
        root.mkdir(parents=True)
        self.name = name
        self.disk = Disk(root, rng, interposer.untouched)
        self.clock = MachineClock(loop)
        self.rng = rng
        # In the order of their start: a set's is that of addresses, and another in each process.
        self.tasks: dict[asyncio.Task[Any], None] = {}
        self.ended = asyncio.Event()
        self.operations = 0
        self.troubled = 0
        self.slow = 0.0
        self.hasty = False
        self.cuts = 0
        self._loop = loop
        self._interposer = interposer
        self._note = note
        self._left = 0
        self._whole = True
        self._trouble = ""
        self._process = _Process(self)
        interposer.watch(self.disk)
        loop.watched.append(self)

    def context(self) -> contextvars.Context:
        """The context of everything that the machine runs."""
        context = contextvars.copy_context()
        context.run(_OWNER.set, self._process)
        return context

    def start(self, coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run something on this machine."""
        return self._loop.create_task(coroutine, context=self.context())

    async def offload(self, function: Callable[..., Any], *args: Any) -> Any:
        """As in a thread: others go on before and after, for as long as the disk is slow; all of it is one step."""
        if self.slow:
            await asyncio.sleep(self.rng.random() * self.slow)
        elif not self.hasty:
            await asyncio.sleep(0)
        if self.disk.dead:
            raise PowerCut
        result = function(*args)
        if self.slow:
            await asyncio.sleep(self.rng.random() * self.slow)
        return result

    # Faults.

    @property
    def counts(self) -> bool:
        """Whether the process is to end after some operations more."""
        return self._left > 0

    def cut_after(self, operations: int, *, whole: bool) -> None:
        """End the process at the so-many-th operation from now on; ``whole``: nothing that was written is lost."""
        self._left = operations
        self._whole = whole
        self._loop.call_later(_PATIENCE, self._end_now, self.cuts)

    def _end_now(self, cuts: int) -> None:
        if self._left and self.cuts == cuts:
            self._left = 0
            self._end("patience")

    def trouble(self, kind: str) -> None:
        """The disk has trouble of this kind, or, if it is empty, none any more."""
        self._trouble = kind

    def iterated(self) -> None:
        """The loop begins another iteration: everything of the process waits somewhere."""
        if self._left and not self.disk.dead:
            self._left -= 1
            if self._left == 0:
                self._end("await")

    @property
    def loses(self) -> bool:
        """Whether its end, which has come, is a power cut: what was not synced is lost."""
        return self.disk.dead and not self._whole

    def before(self, kind: str, path: str, on: Machine | None = None) -> None:
        """
        The process is about to do something with its disk.

        Args:
            kind: what.
            path: of what.
            on: whose disk it is, if not its own.

        Raises:
            PowerCut: if it does not come to that.
            OSError: if the disk has trouble.

        """
        host = self if on is None else on
        if self.disk.dead or host.loses:
            raise PowerCut
        self.operations += 1
        if self._left:
            self._left -= 1
            if self._left == 0:
                self.disk.commit_fate = self.rng.random() if kind.startswith("commit") else None
                self._end(f"{kind} {Path(path).name[:12]}")
                raise PowerCut
        if host._trouble and not path.endswith("lock"):
            number, words, kinds = _TROUBLES[host._trouble]
            if kind in kinds and (host._trouble != "eio" or host.rng.random() < _EIO_SHARE):
                host.troubled += 1
                raise OSError(number, words)

    def _end(self, where: str) -> None:
        self.disk.dead = True
        self.cuts += 1
        self._note(f"{self.name}: ends at {where.partition(' ')[0]}")
        self._loop.call_soon(self.ended.set)

    def switch_off(self) -> None:
        """Nothing of the process does anything any more; the federation is over."""
        self.disk.dead = True
        self._process.alive = False

    async def stopped(self) -> None:
        """
        End the process, wherever it is, and make the disk what is left of it.

        It is called from outside of the machine. A process that was not ended by a fault is killed here.
        """
        by_fault, self.disk.dead = self.disk.dead, True
        self._process.alive = False
        while self.tasks:
            for task in list(self.tasks):
                task.cancel()
            await asyncio.wait(list(self.tasks), timeout=60.0)
        self._interposer.end_process(self.disk)
        if by_fault and not self._whole:
            self.disk.cut()
        else:
            self.disk.killed()
        self._left = 0
        self._whole = True
        self._process = _Process(self)
        self.disk.dead = False
        self.ended.clear()

    @contextlib.contextmanager
    def powered(self) -> Any:
        """The machine's folder as outsiders see it."""
        with self._interposer.untouched():
            yield self.disk.root
