"""Several runs behind one port: a device's first message names the run that it wants."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Mapping, Sequence

from mobile_sdk.net.connection import Connection
from mobile_sdk.protocol.messages import Later

from ..config import Config, ServerSection
from ..errors import ConfigError, ConflictError
from ..loop.coordinator import Coordinator
from ..net.traffic import Traffic
from ..programs.export_workers import stop_planning
from ..sessions.first_message import Serve, serve_by_run
from .preparation import Preparations
from .served_run import ServedRun, open_run

__all__ = ["Service"]

log = logging.getLogger(__name__)

# How long a device that comes while the coordinator shuts down stays away.
RESTART_SECONDS = 15.0

# How long dismissed devices have to close their connections before the state directories are given back.
FAREWELL_SECONDS = 5.0


class Service:
    """
    The runs of one process.

    Args:
        section: how devices connect; shared by all runs.

    """

    def __init__(self, section: ServerSection) -> None:
        self.section = section
        self.url = ""
        self._runs: dict[str, ServedRun] = {}
        self._opening: set[str] = set()
        self._unwanted: set[asyncio.Task[ServedRun]] = set()  # of runs that are opened, and that nobody waits for
        self._closing = False

    @property
    def runs(self) -> Mapping[str, ServedRun]:
        """The runs by name."""
        return self._runs

    def coordinators(self) -> Mapping[str, Coordinator]:
        """The coordinators of the runs, by name."""
        return {name: running.coordinator for name, running in self._runs.items()}

    async def create_all(
        self, configs: Sequence[Config], progress: Callable[[str], None], preparations: Preparations
    ) -> None:
        """
        Open runs, one after the other; but all that are left at once when another process has led the first.

        Whoever leads the first run leads the others: two processes that begin at once do not wait for each other.
        Arguments and errors are those of :meth:`create`.
        """
        left = list(configs)
        while left:
            # Planning one takes all processors; what was prepared takes nothing but time.
            opening = left if preparations.started and self._runs else left[:1]
            left = left[len(opening) :]
            tasks = [asyncio.create_task(self.create(config, progress, preparations)) for config in opening]
            try:
                await asyncio.gather(*tasks)
            except BaseException:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                raise

    async def create(
        self, config: Config, progress: Callable[[str], None], preparations: Preparations | None = None
    ) -> ServedRun:
        """
        Open a run and serve it; it is planned first if its state directory is empty.

        Args:
            config: the run file.
            progress: called with a sentence as planning goes on.
            preparations: what is ready of it, should another process lead it at first.

        Raises:
            ConflictError: if a run of this name is served already.
            CoordinatorError: if the run file or the state directory cannot be used.
            ConfigError: if the run file asks for another server than the one that runs.

        """
        name = config.run.name
        if name in self._runs or name in self._opening:
            raise ConflictError(f"a run {name!r} is served already")
        if config.server != self.section and config.server != ServerSection():
            raise ConfigError(f"the run {name!r} has another [server] than the one that is served: leave it out")
        self._opening.add(name)
        giving_up = threading.Event()
        try:
            # The coordinator binds to the event loop, so the slow part alone is done in a thread.
            config = config.model_copy(update={"server": self.section})
            opening = asyncio.create_task(asyncio.to_thread(open_run, config, progress, giving_up, preparations))
            running = await asyncio.shield(opening)
        except asyncio.CancelledError:
            # Planning goes on from where it was, next time; its thread would keep this process for minutes.
            stop_planning()
            giving_up.set()
            self._unwanted.add(opening)
            raise
        finally:
            self._opening.discard(name)
        self._runs[name] = running
        running.start()
        return running

    async def announce(self, address: str) -> None:
        """Let gateways find this process at ``address``, ``HOST:PORT``, for as long as it leads the runs."""
        for running in self._runs.values():
            await asyncio.to_thread(running.store.lease.announce, address)

    async def serve(
        self, connection: Connection, traffic: Traffic | None = None, proven: Callable[[], None] = lambda: None
    ) -> None:
        """
        Serve one connection until it ends.

        Args:
            connection: a device, or somebody else.
            traffic: counts its bytes.
            proven: called once the device has proved who it is.

        """

        def find(run: str) -> Serve | Later | None:
            if self._closing:
                return Later(RESTART_SECONDS, "the coordinator restarts")
            running = self._runs.get(run)
            if running is None:
                return None
            coordinator = running.coordinator
            return lambda replayed: coordinator.serve(replayed, traffic, proven)

        await serve_by_run(connection, self.section.handshake_seconds, find)

    async def close(self) -> None:
        """
        Shut down: no new work, uploads that are on their way may arrive, and the state directories are given back.

        Nothing is lost by a faster end; devices only would have to send again.
        """
        self._closing = True
        runs = list(self._runs.values())
        for running in runs:
            running.coordinator.dispatcher.stop("the coordinator restarts")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.section.drain_seconds):
                await asyncio.gather(*(running.coordinator.settled() for running in runs))
        await asyncio.gather(
            *(running.coordinator.dismiss("unavailable", "the coordinator restarts") for running in runs)
        )
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FAREWELL_SECONDS):
                await asyncio.gather(*(running.coordinator.drained() for running in runs))
        for running in runs:
            await running.close()
        self._runs.clear()
        for opened in await asyncio.gather(*self._unwanted, return_exceptions=True):
            if isinstance(opened, ServedRun):  # another process may lead it
                await asyncio.to_thread(opened.discard)
