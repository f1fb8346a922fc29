"""``ftte gateway`` and ``ftte conduct``: the two halves of ``ftte serve``."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import re
import signal
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from mobile_sdk.system.signals import call_at_signal, call_when_told_to_end

from ..errors import ConfigError
from .parsing import add_set_option

if TYPE_CHECKING:
    from ..conductor.listener import RemoteGateways
    from ..config import Config, GatewaysSection
    from ..gateway.conductors import Conductors

__all__ = ["add_gateway_commands"]


def add_gateway_commands(commands: Any) -> None:
    """Register them."""
    gateway = commands.add_parser(
        "gateway",
        help="hold devices' connections for a conductor",
        description="Hold devices' connections: prove, transfer, validate, acknowledge. Several may share one port. "
        "Nothing is kept here: devices of a gateway that ends go on at another one.",
    )
    gateway.add_argument("files", type=Path, nargs="+", metavar="RUN.toml", help="run files; their [server] is used")
    _add_socket_option(gateway)
    _add_health_option(gateway)
    add_set_option(gateway)
    gateway.add_argument("--json-logs", action="store_true", help="log JSON, a line each, on standard error")
    gateway.set_defaults(handler=_gateway)

    conduct = commands.add_parser(
        "conduct",
        help="coordinate runs whose devices are connected to gateways",
        description="Coordinate runs as `ftte serve` does, without a port for devices, which connect to gateways.",
    )
    conduct.add_argument("files", type=Path, nargs="+", metavar="RUN.toml", help="run files, or a folder of them")
    _add_socket_option(conduct)
    _add_health_option(conduct)
    add_set_option(conduct)
    conduct.add_argument("--stay", action="store_true", help="go on when all runs have ended: they tell devices so")
    conduct.add_argument("--standby", action="store_true", help="wait for as long as another process leads the runs")
    conduct.add_argument("--json-logs", action="store_true", help="log JSON, a line each, on standard error")
    conduct.set_defaults(handler=_conduct)


def _host_and_port(text: str) -> str:
    if not re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):[0-9]{1,5}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT")
    return text


def _add_health_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--health",
        type=_host_and_port,
        metavar="HOST:PORT",
        help="answer GET /healthz and /readyz about this process there, to whoever asks",
    )


def _add_socket_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--socket",
        type=Path,
        metavar="PATH",
        help="Unix socket on which the conductor listens for gateways of this machine; for others see [gateways]",
    )


def _gateway(options: argparse.Namespace, console: Console) -> int:
    from ..config import load_config, run_files, shared_gateways, shared_server
    from ..gateway.process import run_gateway
    from .event_loop import run

    configs = [load_config(file, options.set) for file in run_files(options.files)]
    section, server, ended = shared_gateways(configs), shared_server(configs), _Ended()
    conductors = _conductors(options, configs, section)
    with contextlib.ExitStack() as stack:
        folder = section.folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ftte-gateway-")))
        try:
            run(_cancelled_by_signals(run_gateway(server, conductors, folder, options.health), ended))
        except asyncio.CancelledError:
            if ended.by != signal.SIGTERM:
                raise
    return 0


def _conductors(options: argparse.Namespace, configs: Sequence[Config], section: GatewaysSection) -> Conductors:
    """Where the conductor is, of the places that command line and run files name."""
    from ..gateway.conductors import LocalConductor, RemoteConductors
    from ..gateway.handshake import load_secret
    from ..store.open import find_leader, in_postgres

    if options.socket is not None:
        return LocalConductor(options.socket)
    if section.secret is None:
        raise ConfigError(_NOWHERE)
    secret = load_secret(section.secret)
    if section.conductor is not None:
        address = section.conductor

        async def given() -> str:
            return address

        return RemoteConductors(given, secret)
    if not in_postgres(configs[0]):
        raise ConfigError(_NOWHERE)
    return RemoteConductors(find_leader(configs[0]), secret)


_NOWHERE = (
    "it is not known where the conductor is: give --socket PATH if it is on this machine; else secret below "
    '[gateways], and conductor = "HOST:PORT" there or the run in a database'
)


def _conduct(options: argparse.Namespace, console: Console) -> int:
    from ..conductor.listener import RemoteGateways
    from ..config import load_config, run_files, shared_gateways
    from ..gateway.handshake import load_secret
    from .serve import serve_runs

    section = shared_gateways([load_config(file, options.set) for file in run_files(options.files)])
    places: list[Path | RemoteGateways] = [] if options.socket is None else [options.socket]
    if section.listen is not None and section.secret is not None:
        places.append(RemoteGateways(section.listen, load_secret(section.secret), section.address))
    if not places:
        raise ConfigError(
            "there is nowhere to wait for gateways: give --socket PATH for those of this machine, or listen and secret "
            "below [gateways]"
        )
    return serve_runs(options, console, gateways=places)


class _Ended:
    """The signal that has ended the process, if one has."""

    by: int | None = None


async def _cancelled_by_signals(work: Any, ended: _Ended) -> None:
    task = asyncio.current_task()
    assert task is not None

    def stop(by: int = signal.SIGINT) -> None:
        if ended.by is None:
            ended.by = by
            task.cancel()

    loop = asyncio.get_running_loop()
    call_when_told_to_end(loop, stop)
    call_at_signal(loop, signal.SIGTERM, lambda: stop(signal.SIGTERM))
    await work
