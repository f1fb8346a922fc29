"""``ftte``: serve runs, operate them, export programs, or see a demo."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import sys
from concurrent.futures import BrokenExecutor
from pathlib import Path

from rich.console import Console
from rich.text import Text

from exporters.cli.export import add_export_command
from exporters.cli.plan import add_plan_command
from exporters.cli.progress import StageProgress
from mobile_sdk.errors import FtteError
from mobile_sdk.system.os_errors import describe_os_error
from mobile_sdk.version import __version__

from .backup import add_backup_commands
from .completion import add_completion_command
from .dashboard import add_dashboard_command
from .first_steps import first_steps
from .gateways import add_gateway_commands
from .linux_commands import require_linux
from .logs import configure_logging
from .migrate import add_migrate_command
from .new import add_new_command
from .operate import add_operating_commands
from .parsing import Parser, add_set_option, group_commands
from .run import add_run_command
from .serve import add_serving_commands
from .simulate import add_simulate_command
from .top import add_top_command
from .verify_log import add_verify_command

__all__ = ["main"]

log = logging.getLogger(__name__)


# Every command is in one of these.
GROUPS = {
    "Start here": ("demo", "new", "doctor", "completion"),
    "Prepare a run": ("export", "plan", "simulate", "certificate"),
    "Serve runs": ("run", "serve", "conduct", "gateway", "runs", "invite", "tokens", "devices"),
    "Look and decide": ("dashboard", "top", "versions", "rollback", "export-model", "audit", "metrics"),
    "Keep safe": ("backup", "restore", "migrate", "rotate-key", "verify-log"),
}
# As if SIGPIPE had ended the process: whoever read the output has gone.
CLOSED_PIPE = 141


def main(arguments: list[str] | None = None) -> int:
    """
    Entry point.

    Returns:
        The exit code: 0 on success (and when ``serve`` is ended by SIGTERM), 1 on an error, 2 on wrong usage, 130 when
        interrupted, 141 when the reader of the output has gone. Errors are one line on standard error; with ``--json``
        it is a JSON object with the key ``error``.

    """
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments:
        print(first_steps(Path.cwd()))
        return 0
    options = _parser().parse_args(arguments)
    # Tasks are looked up like the modules of `python -m`: from the folder where the user is.
    sys.path.insert(0, str(Path.cwd()))
    console = Console()
    configure_logging(console, verbose=options.verbose, as_json=getattr(options, "json_logs", False))
    try:
        require_linux(arguments)
        code: int = options.handler(options, console)
        sys.stdout.flush()
    except FtteError as error:
        return _failed(str(error), options)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is still buffered must not raise again
        return CLOSED_PIPE
    except OSError as error:
        log.debug("the command ends", exc_info=error)
        return _failed(describe_os_error(error), options)
    except BrokenExecutor as error:
        log.debug("the command ends", exc_info=error)
        return _failed(
            "a process that worked for this command was ended from outside, perhaps since the machine has too little "
            "memory: end other programs and try again",
            options,
        )
    except (KeyboardInterrupt, asyncio.CancelledError):
        return 130
    return code


def _failed(sentence: str, options: argparse.Namespace) -> int:
    """Say on standard error why a command ends; its exit code."""
    if getattr(options, "json", False):
        print(json.dumps({"error": sentence}), file=sys.stderr)
    else:
        errors = Console(stderr=True)
        errors.print(f"ftte: {sentence}", style="red", highlight=False, markup=False, soft_wrap=True)
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="ftte",
        description="Federated Tiny Training Engine: phones, watches and sensors learn one model together.\n\n"
        "  ftte demo                 see it: a coordinator and eight devices on this machine\n"
        "  ftte serve RUN.toml       coordinate a run",
        usage="ftte [--version] [--verbose] COMMAND ...",
    )
    parser.add_argument("--version", action="version", version=f"ftte {__version__}")
    parser.add_argument("--verbose", action="store_true", help="log what goes on")
    commands: argparse._SubParsersAction[argparse.ArgumentParser] = parser.add_subparsers(
        required=True, metavar="COMMAND", parser_class=Parser, prog="ftte", help=argparse.SUPPRESS
    )
    add_serving_commands(commands)
    add_gateway_commands(commands)
    add_run_command(commands)
    add_new_command(commands)
    add_operating_commands(commands)
    add_dashboard_command(commands)
    add_top_command(commands)
    add_completion_command(commands)
    doctor = commands.add_parser("doctor", help="check run files, their state and this machine")
    doctor.add_argument("files", type=Path, nargs="+", metavar="RUN.toml", help="run files, or a folder of them")
    add_set_option(doctor)
    doctor.add_argument("--json", action="store_true", help="print JSON")
    doctor.set_defaults(handler=_doctor)
    show_demo = commands.add_parser("demo", help="a coordinator and eight devices on this machine")
    show_demo.add_argument("--out", type=Path, default=Path("ftte-demo"), metavar="DIR", help="default: ftte-demo")
    show_demo.add_argument("--stay", action="store_true", help="keep the dashboard open after the end")
    show_demo.set_defaults(handler=_demo)
    add_export_command(commands)
    add_simulate_command(commands)
    add_backup_commands(commands)
    add_migrate_command(commands)
    add_verify_command(commands)
    add_plan_command(commands)
    for action in commands._choices_actions:
        described = commands.choices[action.dest]
        words = action.help or ""
        described.description = described.description or f"{words[:1].upper()}{words[1:]}."
    group_commands(parser, commands, GROUPS)
    return parser


def _doctor(options: argparse.Namespace, console: Console) -> int:
    with StageProgress(console, as_json=options.json) as progress:
        progress.say("importing torch, to check the task")
        from .doctor import examine

        findings = examine(options.files, options.set)
    styles = {"ok": "green", "warning": "yellow", "error": "red"}
    if options.json:
        print(json.dumps([finding._asdict() for finding in findings], indent=2))
    for level, sentence in () if options.json else findings:
        console.print(Text.assemble((f"{level:8}", styles[level]), sentence), soft_wrap=True)
    return int(any(finding.level == "error" for finding in findings))


def _demo(options: argparse.Namespace, console: Console) -> int:
    console.print("starting a coordinator and eight devices", highlight=False)
    from .demo import demo

    asyncio.run(demo(options.out, console, stay=options.stay))
    return 0
