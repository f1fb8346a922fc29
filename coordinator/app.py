"""Runs from their files to their summaries: what ``ftte serve`` and ``ftte demo`` have in common."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from .admin.server import claim_admin_folder, open_admin
from .conductor.listener import GatewayConnections, RemoteGateways, listen_for_gateways
from .config import Config, shared_server
from .dashboard.server import Dashboard, open_dashboard
from .errors import Superseded
from .net.admission import ConnectionLimits
from .net.listener import device_address, listen
from .reports.live import live
from .runs.preparation import Preparations
from .runs.served_run import ServedRun
from .runs.service import Service

__all__ = ["App", "open_app"]

# How often it is looked whether another process leads.
LOOK_SECONDS = 0.5

# How long devices have to hear of the end before the server closes.
FAREWELL_SECONDS = 10.0


class App:
    """
    A service that listens.

    ``url`` is where devices connect, ``service`` holds the runs, ``dashboard`` shows them, unless it is switched off.
    """

    def __init__(self, service: Service, console: Console, dashboard: Dashboard | None = None) -> None:
        self.service = service
        self.dashboard = dashboard
        self.url = service.url
        self._console = console

    @property
    def only(self) -> ServedRun:
        """The run, where there is but one."""
        (running,) = self.service.runs.values()
        return running

    async def run(self) -> list[dict[str, Any]]:
        """Show the runs until all have ended; their summaries, as in their ``summary.json``."""
        runs = list(self.service.runs.values())
        async with live(self._console, lambda: [running.coordinator.status() for running in runs]):
            await asyncio.gather(*(running.ended() for running in runs))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FAREWELL_SECONDS):
                    await asyncio.gather(*(running.coordinator.drained() for running in runs))
        summaries = [running.summary() for running in runs]
        for running, summary in zip(runs, summaries, strict=True):
            running.save(summary)
        return summaries

    async def stay(self) -> None:
        """
        Show the runs until the process is told to end, whatever becomes of them.

        Raises:
            Superseded: if another process leads one of them by now.

        """
        async with live(self._console, lambda: [r.coordinator.status() for r in self.service.runs.values()]):
            while True:
                for running in self.service.runs.values():
                    if running.store.lease.lost:
                        raise Superseded(f"another process leads the run {running.name} by now: this one ends")
                await asyncio.sleep(LOOK_SECONDS)


@contextlib.asynccontextmanager
async def open_app(
    configs: Sequence[Config],
    console: Console,
    *,
    admin: bool = True,
    gateways: Sequence[Path | RemoteGateways] = (),
    preparations: Preparations | None = None,
) -> AsyncIterator[App]:
    """
    Open the runs, plan those that were not planned yet, and listen, for devices and for the operator.

    Args:
        configs: the run files. Their ``[server]`` and ``[admin]`` must agree where more than one has them.
        console: where progress is shown.
        admin: whether operators can connect.
        gateways: where to wait for gateways, which hold the devices' connections; nowhere: this process does.
        preparations: what is ready of the runs already, where this process has stood by.

    Raises:
        CoordinatorError: if a run file or a state directory cannot be used.
        ExportError: if a program cannot be made.

    """
    section = shared_server(configs)
    service, prepared = Service(section), preparations or Preparations(configs)
    limits = section.connections, section.handshakes, section.handshakes_per_address
    gate = GatewayConnections() if gateways else ConnectionLimits(*limits)
    async with contextlib.AsyncExitStack() as stack:
        if admin:
            stack.enter_context(claim_admin_folder(configs[0].admin))
        stack.push_async_callback(service.close)
        if preparations is None:
            stack.callback(prepared.close)
        with console.status("planning programs ...") as status:

            def progress(text: str) -> None:
                if text.startswith("warning: "):
                    console.print(text, style="yellow", highlight=False, soft_wrap=True)
                elif console.is_terminal:
                    status.update(text)
                else:
                    console.print(text, highlight=False, soft_wrap=True)

            await service.create_all(configs, progress, prepared)
            prepared.close()
        if isinstance(gate, GatewayConnections):
            for place in gateways:
                address = await stack.enter_async_context(listen_for_gateways(place, service.coordinators, gate))
                if isinstance(place, RemoteGateways):
                    await service.announce(address)
            service.url = device_address(section)
        else:
            service.url = await stack.enter_async_context(listen(service, section, gate))
        # Left in the opposite order: operators start nothing new, then devices are dismissed, then the port closes.
        stack.push_async_callback(service.close)
        folder, dashboard = configs[0].admin.folder if admin else None, None
        if configs[0].dashboard.enabled:
            dashboard = await stack.enter_async_context(open_dashboard(service, configs[0].dashboard, folder))
        if admin:
            extensions = () if dashboard is None else (dashboard.add_to_admin,)
            await stack.enter_async_context(open_admin(service, gate, configs[0].admin, *extensions))
        yield App(service, console, dashboard)
