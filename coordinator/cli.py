"""``ftte``: serve a run, export a program, or see a demo."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
from pathlib import Path

from rich.console import Console
from rich.logging import RichHandler

from exporters.cli import add_export_command
from exporters.plan_cli import add_plan_command
from mobile_sdk.errors import FtteError
from mobile_sdk.version import __version__

from .backup_cli import add_backup_commands
from .config import load_config
from .demo import demo
from .serve import serving
from .simulation.cli import add_simulate_command
from .summary import show

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit code: 0 on success, 1 on an error, 2 on wrong usage, 130 when interrupted."""
    options = _parser().parse_args(arguments)
    # Tasks are looked up like the modules of `python -m`: from the folder where the user is.
    sys.path.insert(0, str(Path.cwd()))
    console = Console()
    logging.basicConfig(
        level=logging.INFO if options.verbose else logging.WARNING,
        format="%(message)s",
        handlers=[RichHandler(console=console, show_path=False)],
    )
    logging.getLogger("websockets").setLevel(logging.ERROR)
    try:
        code: int = options.handler(options, console)
    except FtteError as error:
        console.print(f"ftte: {error}", style="red", highlight=False)
        return 1
    except (KeyboardInterrupt, asyncio.CancelledError):
        return 130
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ftte", description="Federated Tiny Training Engine.")
    parser.add_argument("--version", action="version", version=f"ftte {__version__}")
    parser.add_argument("--verbose", action="store_true", help="log what goes on")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    serve = commands.add_parser("serve", help="coordinate a run until it has ended")
    serve.add_argument("file", type=Path, metavar="RUN.toml", help="the run file")
    serve.set_defaults(handler=_serve)
    show_demo = commands.add_parser("demo", help="a coordinator and eight devices on this machine")
    show_demo.add_argument("--out", type=Path, default=Path("ftte-demo"), metavar="DIR", help="default: ftte-demo")
    show_demo.set_defaults(handler=_demo)
    add_export_command(commands)
    add_simulate_command(commands)
    add_backup_commands(commands)
    add_plan_command(commands)
    return parser


def _serve(options: argparse.Namespace, console: Console) -> int:
    config = load_config(options.file)

    async def serve() -> None:
        task = asyncio.current_task()
        if task is not None:
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        async with serving(config, console) as server:
            run, token = config.run.name, " --token TOKEN" if config.server.token else ""
            console.print(f"The run {run} waits for devices on {server.url}. Join it with", highlight=False)
            join = f"ftte-device join {server.url} --run {run} --key {server.key}{token} --data MODULE:CALLABLE"
            console.print(f"  {join}", highlight=False, soft_wrap=True)
            try:
                summary = await server.run()
            except asyncio.CancelledError:
                console.print(
                    f"Stopped at version {server.coordinator.status().version}; the same command goes on from there.",
                    highlight=False,
                )
                raise
            server.save(summary, config.run.state)
            console.print(show(summary))
            console.print(f"summary and weights are in {config.run.state}", highlight=False)

    asyncio.run(serve())
    return 0


def _demo(options: argparse.Namespace, console: Console) -> int:
    asyncio.run(demo(options.out, console))
    return 0
