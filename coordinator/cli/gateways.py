"""``ftte gateway`` and ``ftte conduct``: the two halves of ``ftte serve``."""

from __future__ import annotations

import argparse
import asyncio
import signal
from pathlib import Path
from typing import Any

from rich.console import Console

from mobile_sdk.system.signals import call_at_signal, call_when_told_to_end

from .parsing import add_set_option

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
    add_set_option(conduct)
    conduct.add_argument("--stay", action="store_true", help="go on when all runs have ended: they tell devices so")
    conduct.add_argument("--standby", action="store_true", help="wait for as long as another process leads the runs")
    conduct.add_argument("--json-logs", action="store_true", help="log JSON, a line each, on standard error")
    conduct.set_defaults(handler=_conduct)


def _add_socket_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--socket",
        type=Path,
        required=True,
        metavar="PATH",
        help="Unix socket on which the conductor listens for gateways",
    )


def _gateway(options: argparse.Namespace, console: Console) -> int:
    from ..config import load_config, run_files, shared_server
    from ..gateway.process import run_gateway
    from .event_loop import run

    configs = [load_config(file, options.set) for file in run_files(options.files)]
    ended = _Ended()
    try:
        run(_cancelled_by_signals(run_gateway(shared_server(configs), options.socket), ended))
    except asyncio.CancelledError:
        if ended.by != signal.SIGTERM:
            raise
    return 0


def _conduct(options: argparse.Namespace, console: Console) -> int:
    from .serve import serve_runs

    return serve_runs(options, console, gateways=options.socket)


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
