"""Several runs behind one port: a device's first message names the run that it wants."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping

from mobile_sdk.errors import ProtocolError
from mobile_sdk.net.connection import Connection, ConnectionLost
from mobile_sdk.protocol.messages import Error, Hello, Later, Message, Name, decode, encode, printable

from ..config import Config, ServerSection
from ..errors import ConfigError, ConflictError
from ..net.peer_log import PeerLog
from ..net.traffic import Traffic
from ..programs.export_workers import stop_planning
from .served_run import ServedRun, open_run

__all__ = ["Service"]

log = logging.getLogger(__name__)
peers = PeerLog(log)

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
        self._closing = False

    @property
    def runs(self) -> Mapping[str, ServedRun]:
        """The runs by name."""
        return self._runs

    async def create(self, config: Config, progress: Callable[[str], None]) -> ServedRun:
        """
        Open a run and serve it; it is planned first if its state directory is empty.

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
        try:
            # The coordinator binds to the event loop, so the slow part alone is done in a thread.
            running = await asyncio.to_thread(open_run, config.model_copy(update={"server": self.section}), progress)
        except asyncio.CancelledError:
            # Planning goes on from where it was, next time; its thread would keep this process for minutes.
            stop_planning()
            raise
        finally:
            self._opening.discard(name)
        self._runs[name] = running
        running.start()
        return running

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
        with contextlib.suppress(ConnectionLost):
            try:
                async with asyncio.timeout(self.section.handshake_seconds):
                    first = await connection.receive()
            except TimeoutError:
                await _refuse(connection, "unavailable", "nothing was said for too long: try again")
                return
            try:
                message = decode(first) if isinstance(first, str) else None
            except ProtocolError as error:
                await _refuse(connection, error.code, str(error))
                return
            if not isinstance(message, Hello):
                await _refuse(connection, "protocol", "the first message must be hello")
                return
            if self._closing:
                await _say(connection, Later(RESTART_SECONDS, "the coordinator restarts"))
                return
            running = self._runs.get(message.run)
            if running is None:
                await _refuse(
                    connection, "unknown-run", f"there is no run {message.run!r} here: check name and address"
                )
                return
            await running.coordinator.serve(_Replayed(connection, first), traffic, proven)

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


class _Replayed:
    """A connection whose first frame was read already."""

    def __init__(self, connection: Connection, first: str | bytes) -> None:
        self._connection = connection
        self._first: str | bytes | None = first

    async def send(self, frame: str | bytes) -> None:
        await self._connection.send(frame)

    async def receive(self) -> str | bytes:
        if self._first is not None:
            first, self._first = self._first, None
            return first
        return await self._connection.receive()

    async def close(self, reason: str = "") -> None:
        await self._connection.close(reason)


async def _say(connection: Connection, message: Message) -> None:
    await connection.send(encode(message))
    await connection.close()


async def _refuse(connection: Connection, code: str, words: str) -> None:
    peers.warning("a stranger", "a connection was refused: %s", words)
    await _say(connection, Error(Name(code), printable(words)))
