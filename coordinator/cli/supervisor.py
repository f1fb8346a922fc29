"""``ftte serve --gateways``: a conductor and its gateways, started and watched."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import socket as sockets
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from mobile_sdk.system.signals import call_at_signal, call_when_told_to_end
from mobile_sdk.system.sockets import share_port

from ..config import ServerSection
from ..errors import ConfigError

__all__ = ["serve_with_gateways"]

log = logging.getLogger(__name__)

# A process that ended so soon after its start is started again only after as long.
SOON_SECONDS = 2.0

# The command itself, of this installation.
_FTTE = "import sys; from coordinator.cli.main import main; sys.exit(main())"


def serve_with_gateways(options: argparse.Namespace, section: ServerSection) -> int:
    """
    Run a conductor and ``options.gateways`` gateways until the conductor has ended; one that dies is started again.

    Args:
        options: of ``ftte serve``.
        section: how devices connect.

    Returns:
        The conductor's exit code.

    """
    with tempfile.TemporaryDirectory(prefix="ftte-") as folder, _reserved_port(section) as port:
        common = [*map(str, options.files), "--socket", str(Path(folder) / "conductor.sock")]
        common += [word for override in (*options.set, f"server.port={port}") for word in ("--set", override)]
        common += ["--json-logs"] if options.json_logs else []
        ftte = [sys.executable, "-c", _FTTE, *(["--verbose"] if options.verbose else [])]
        conductor = [*ftte, "conduct", *common, *(["--stay"] if options.stay else [])]
        gateways = [[*ftte, "gateway", *common] for _ in range(options.gateways)]
        return asyncio.run(_Supervisor(conductor, gateways).run())


@contextlib.contextmanager
def _reserved_port(section: ServerSection) -> Iterator[int]:
    """A port that gateways may listen on together; nobody else gets it meanwhile. No connection comes here."""
    family = sockets.AF_INET6 if ":" in section.host else sockets.AF_INET
    with sockets.socket(family, sockets.SOCK_STREAM) as held:
        share_port(held)
        try:
            held.bind((section.host, section.port))
        except OSError as error:
            raise ConfigError(
                f"cannot listen on {section.host}:{section.port}: {error.strerror}; is another coordinator running?"
            ) from error
        yield held.getsockname()[1]


class _Supervisor:
    """Starts processes, starts those again that die, and ends all with the conductor."""

    def __init__(self, conductor: Sequence[str], gateways: Sequence[Sequence[str]]) -> None:
        self._conductor = conductor
        self._gateways = gateways
        self._processes: dict[str, asyncio.subprocess.Process] = {}
        self._ending = False
        self._by = signal.SIGTERM

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        call_when_told_to_end(loop, lambda: self._end(signal.SIGINT))
        call_at_signal(loop, signal.SIGTERM, lambda: self._end(signal.SIGTERM))
        watching = [
            asyncio.create_task(self._keep(f"gateway {number}", command))
            for number, command in enumerate(self._gateways, 1)
        ]
        code = await self._keep("conductor", self._conductor)
        self._end(signal.SIGTERM)
        await asyncio.gather(*watching)
        return code

    def _end(self, by: signal.Signals) -> None:
        """The conductor ends first, and tells devices so; then gateways."""
        first = not self._ending
        self._ending, self._by = True, by
        conductor = self._processes.get("conductor")
        if first and conductor is not None:
            _signal(conductor, by)
            return
        for process in self._processes.values():
            _signal(process, signal.SIGTERM)

    async def _keep(self, name: str, command: Sequence[str]) -> int:
        """Run a command; again, if it dies. Returns its exit code once it has ended by itself or was told to."""
        while True:
            began = time.monotonic()
            # In a group of its own: a Ctrl-C at the terminal comes through this process, once, and in order.
            process = await asyncio.create_subprocess_exec(*command, process_group=0, env=os.environ)
            self._processes[name] = process
            if self._ending:
                _signal(process, self._by)
            code = await process.wait()
            del self._processes[name]
            died = code < 0 or (name != "conductor" and code != 0)
            if self._ending or not died:
                return code if code >= 0 else 128 - code
            log.warning("the %s has died (%s): it is started again", name, code)
            if time.monotonic() - began < SOON_SECONDS:
                await asyncio.sleep(SOON_SECONDS)


def _signal(process: asyncio.subprocess.Process, by: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(by)
