"""``ftte``: serve runs, operate them, export programs, or see a demo."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

from exporters.cli.export import add_export_command
from exporters.cli.plan import add_plan_command
from mobile_sdk.errors import FtteError
from mobile_sdk.version import __version__

from .backup import add_backup_commands
from .logs import configure_logging
from .operate import add_operating_commands
from .serve import add_serving_commands
from .simulate import add_simulate_command

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit code: 0 on success, 1 on an error, 2 on wrong usage, 130 when interrupted."""
    options = _parser().parse_args(arguments)
    # Tasks are looked up like the modules of `python -m`: from the folder where the user is.
    sys.path.insert(0, str(Path.cwd()))
    console = Console()
    configure_logging(console, verbose=options.verbose, as_json=getattr(options, "json_logs", False))
    try:
        code: int = options.handler(options, console)
    except FtteError as error:
        console.print(f"ftte: {error}", style="red", highlight=False, markup=False)
        return 1
    except (KeyboardInterrupt, asyncio.CancelledError):
        return 130
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ftte", description="Federated Tiny Training Engine.")
    parser.add_argument("--version", action="version", version=f"ftte {__version__}")
    parser.add_argument("--verbose", action="store_true", help="log what goes on")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    add_serving_commands(commands)
    add_operating_commands(commands)
    doctor = commands.add_parser("doctor", help="check run files, their state and this machine")
    doctor.add_argument("files", type=Path, nargs="+", metavar="RUN.toml", help="run files, or a folder of them")
    doctor.set_defaults(handler=_doctor)
    show_demo = commands.add_parser("demo", help="a coordinator and eight devices on this machine")
    show_demo.add_argument("--out", type=Path, default=Path("ftte-demo"), metavar="DIR", help="default: ftte-demo")
    show_demo.set_defaults(handler=_demo)
    add_export_command(commands)
    add_simulate_command(commands)
    add_backup_commands(commands)
    add_plan_command(commands)
    return parser


def _doctor(options: argparse.Namespace, console: Console) -> int:
    from .doctor import examine

    styles = {"ok": "green", "warning": "yellow", "error": "red"}
    findings = examine(options.files)
    for level, sentence in findings:
        console.print(Text.assemble((f"{level:8}", styles[level]), sentence), soft_wrap=True)
    return int(any(finding.level == "error" for finding in findings))


def _demo(options: argparse.Namespace, console: Console) -> int:
    from .demo import demo

    asyncio.run(demo(options.out, console))
    return 0
