"""``ftte serve``, and ``ftte certificate`` for its TLS."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import json
import signal
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from mobile_sdk.system.signals import call_at_signal, call_when_told_to_end

from ..errors import ConfigError
from .parsing import add_set_option

if TYPE_CHECKING:
    from ..app import App
    from ..conductor.listener import RemoteGateways
    from ..config import Config

# What a command needs is imported by the command: `ftte runs` is not to wait for the machinery of `ftte serve`.

__all__ = ["add_serving_commands", "print_address", "serve_runs"]


# How often a process that stands by looks whether it may lead.
STANDBY_SECONDS = 0.2


def add_serving_commands(commands: Any) -> None:
    """Register them."""
    serve = commands.add_parser("serve", help="coordinate runs until they have ended")
    serve.add_argument(
        "files", type=Path, nargs="+", metavar="RUN.toml", help="run files, or a folder: every .toml file in it"
    )
    add_set_option(serve)
    serve.add_argument("--stay", action="store_true", help="go on when all runs have ended: they tell devices so")
    serve.add_argument("--json-logs", action="store_true", help="log JSON, a line each, on standard error")
    serve.add_argument(
        "--gateways",
        type=int,
        default=0,
        metavar="N",
        help="processes that hold the devices' connections, beside one that decides; default: one process for all",
    )
    serve.set_defaults(handler=_serve)

    certificate = commands.add_parser("certificate", help="make a self-signed certificate, for a pilot")
    certificate.add_argument(
        "names", nargs="+", metavar="NAME", help="host names and addresses that devices connect to"
    )
    certificate.add_argument("--out", type=Path, default=Path(), metavar="DIR", help="default: here")
    certificate.add_argument("--json", action="store_true", help="print JSON")
    certificate.set_defaults(handler=_certificate)


def _serve(options: argparse.Namespace, console: Console) -> int:
    if options.gateways < 0:
        raise ConfigError(f"--gateways is {options.gateways}: give 0 for one process, or how many there shall be")
    return serve_runs(options, console)


def serve_runs(options: argparse.Namespace, console: Console, *, gateways: Sequence[Path | RemoteGateways] = ()) -> int:
    """
    Coordinate the runs of a command line until they have ended.

    Args:
        options: files, overrides, and what else `ftte serve` and `ftte conduct` have in common.
        console: shows how it goes on.
        gateways: where to wait for gateways, which hold the devices' connections; nowhere: this process does.

    Returns:
        The exit code.

    """
    files = ", ".join(map(str, options.files))
    console.print(f"starting a coordinator for {files}", highlight=False, markup=False, soft_wrap=True)
    from ..checks.findings import raise_first_error
    from ..checks.serving import check_before_serving
    from ..config import load_config, run_files, shared_server
    from .event_loop import run

    configs = {file: load_config(file, options.set) for file in run_files(options.files)}
    for warning in raise_first_error(check_before_serving(configs, port=not gateways)):
        console.print(f"warning: {warning}", style="yellow", highlight=False, soft_wrap=True)
    if not gateways and options.gateways:
        from .supervisor import serve_with_gateways

        return serve_with_gateways(options, shared_server(list(configs.values())))
    ended = Ended()
    try:
        standby = getattr(options, "standby", False)
        work = _until_ended(
            list(configs.values()),
            console,
            ended,
            stay=options.stay,
            gateways=gateways,
            standby=standby,
            health=getattr(options, "health", None),
        )
        return run(work)
    except asyncio.CancelledError:
        if ended.by == signal.SIGTERM:  # asked to end by whoever supervises it: that is no failure
            return 0
        raise


@dataclasses.dataclass
class Ended:
    """The signal that has ended the process, if one has."""

    by: int | None = None


@contextlib.asynccontextmanager
async def _opened(
    configs: list[Config], console: Console, gateways: Sequence[Path | RemoteGateways], standby: bool
) -> AsyncIterator[App]:
    """The runs; on ``standby``, as soon as no other process leads them."""
    from ..app import open_app
    from ..errors import FolderInUse, LedElsewhere
    from ..runs.preparation import Preparations

    async with contextlib.AsyncExitStack() as stack:
        said, preparations = False, Preparations(configs)
        stack.callback(preparations.close)
        while True:
            try:
                server = await stack.enter_async_context(
                    open_app(configs, console, gateways=gateways, preparations=preparations)
                )
                break
            except (FolderInUse, LedElsewhere) as error:
                if not standby:
                    raise
                if not said:
                    console.print(f"Standing by: {error}", highlight=False, soft_wrap=True)
                    said = True
                    preparations.start()
                await asyncio.sleep(STANDBY_SECONDS)
        yield server


async def _until_ended(
    configs: list[Config],
    console: Console,
    ended: Ended,
    *,
    stay: bool,
    gateways: Sequence[Path | RemoteGateways],
    standby: bool,
    health: str | None,
) -> int:
    from ..net.health import open_health

    task = asyncio.current_task()
    if task is not None:
        _end_when_told(task, ended)
    leads = False
    async with open_health(health, lambda: leads), _opened(configs, console, gateways, standby) as server:
        leads = True
        for running in server.service.runs.values():
            config, key = running.config, running.coordinator.state.key.public
            run, token = config.run.name, " --token TOKEN" if server.service.section.needs_token else ""
            console.print(f"The run {run} waits for devices on {server.url}. Join it with", highlight=False)
            join = f"ftte-device join {server.url} --run {run} --key {key}{token} --data MODULE:CALLABLE"
            console.print(f"  {join}", highlight=False, soft_wrap=True)
        if server.service.section.needs_token:
            console.print("`ftte invite` gives a link with a token, for one device or many.", highlight=False)
        console.print(f"Operate with `ftte runs` and the like; admin folder {configs[0].admin.folder}", highlight=False)
        print_address(server, console)
        try:
            await _serve_until(server, console, stay)
        except asyncio.CancelledError:
            for running in server.service.runs.values():
                status = running.coordinator.status()
                console.print(f"Stopping {status.name} at version {status.version}.", highlight=False)
            console.print("The same command goes on from there.", highlight=False)
            raise
    return 0


def print_address(server: App, console: Console) -> None:
    """Say where the dashboard is. Who reads a log later finds no address that lets them in."""
    if server.dashboard is None:
        return
    if console.is_terminal:
        address = server.dashboard.address()
        console.print(f"Dashboard (lets you in once, within ten minutes): {address}", highlight=False, soft_wrap=True)
    else:
        words = f"Dashboard: {server.dashboard.url}; `ftte dashboard` gives an address that lets you in"
        console.print(words, highlight=False, soft_wrap=True)


async def _serve_until(server: App, console: Console, stay: bool) -> None:
    if stay:
        await server.stay()
        return
    from .summary_table import show_summary

    runs = list(server.service.runs.values())
    for running, summary in zip(runs, await server.run(), strict=True):
        if len(runs) > 1:
            console.rule(running.name)
        show_summary(console, summary)
        words = f"summary and weights are in {running.config.run.state}"
        console.print(words, highlight=False, soft_wrap=True)


def _end_when_told(task: asyncio.Task[Any], ended: Ended) -> None:
    """The first signal drains, and further ones do not cut that short: it is bounded by drain_seconds."""

    def stop(by: int = signal.SIGINT) -> None:
        if ended.by is None:
            ended.by = by
            task.cancel()

    loop = asyncio.get_running_loop()
    call_when_told_to_end(loop, stop)
    call_at_signal(loop, signal.SIGTERM, lambda: stop(signal.SIGTERM))


def _certificate(options: argparse.Namespace, console: Console) -> int:
    from ..net.tls import make_certificate

    certificate, key = options.out / "certificate.pem", options.out / "private_key.pem"
    fingerprint = make_certificate(options.names, certificate, key)
    if options.json:
        made = {"certificate": str(certificate), "private_key": str(key), "names": options.names}
        print(json.dumps({**made, "sha256": fingerprint}, indent=2))
        return 0
    console.print(f"{certificate} for {', '.join(options.names)}, and {key}, which stays secret", highlight=False)
    console.print(f"SHA-256 {fingerprint}; `ftte invite` puts it into the link", highlight=False, soft_wrap=True)
    console.print(
        f'In the run file:\n[server]\ncertificate = "{certificate}"\nprivate_key = "{key}"',
        highlight=False,
        markup=False,
    )
    return 0
