"""``ftte run``: a run of one's own with a few devices on this machine, in one command."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from ..errors import ConfigError, CoordinatorError
from .parsing import add_set_option

if TYPE_CHECKING:
    from ..config import Config
    from .local_devices import LocalDevice

__all__ = ["add_run_command"]


def add_run_command(commands: Any) -> None:
    """Register it."""
    command = commands.add_parser("run", help="serve a run, with a few devices on this machine")
    command.add_argument("file", type=Path, metavar="RUN.toml", help="the run file")
    add_set_option(command)
    command.add_argument("--devices", type=int, metavar="N", help="how many (default: local.devices of the run file)")
    command.add_argument(
        "--data",
        metavar="MODULE:CALLABLE",
        help="samples of each; {index} and {devices} are filled in (default: local.data)",
    )
    command.set_defaults(handler=_run)


def _run(options: argparse.Namespace, console: Console) -> int:
    console.print(f"starting a coordinator for {options.file}", highlight=False, markup=False, soft_wrap=True)
    from ..checks.findings import raise_first_error
    from ..checks.serving import check_before_serving
    from ..config import load_config
    from .event_loop import run

    given = {"local.devices": options.devices, "local.data": options.data}
    overrides = [*options.set, *(f"{key}={value}" for key, value in given.items() if value is not None)]
    config = load_config(options.file, overrides)
    devices = local_fleet(config)
    for warning in raise_first_error(check_before_serving({options.file: config})):
        console.print(f"warning: {warning}", style="yellow", highlight=False, soft_wrap=True)
    return run(_until_ended(config, devices, console))


def local_fleet(config: Config) -> list[LocalDevice]:
    """
    The devices that a run file asks for.

    Raises:
        ConfigError: if it does not say what samples they have.

    """
    from .local_devices import LocalDevice

    local = config.local
    if not local.data:
        raise ConfigError(
            "local.data is missing, which gives each device its samples: write, for instance, "
            'data = "package.module:part({index}, of={devices})" into [local], or give --data'
        )
    budgets = list(config.budgets.values())
    return [
        LocalDevice(
            f"device-{index}",
            local.data.replace("{index}", str(index)).replace("{devices}", str(local.devices)),
            budgets[index % len(budgets)],
        )
        for index in range(local.devices)
    ]


def devices_folder(state: Path) -> Path:
    """Where the devices' storages are: beside the state directory, and apart from those of another run beside it."""
    return state.with_name("devices" if state.name == "state" else f"{state.name}-devices")


async def _until_ended(config: Config, devices: list[LocalDevice], console: Console) -> int:
    from ..admin.operations import Operations
    from ..app import open_app
    from .local_devices import LOG_FILE, failed_devices, local_devices, run_while_any_lives
    from .serve import print_address
    from .summary_table import show_summary

    folder = devices_folder(config.run.state)
    async with open_app([config], console) as server:
        ended = server.only.coordinator.state.phase == "finished"
        if ended:
            devices = []
        else:
            print_address(server, console)
        token = ""
        if server.service.section.needs_token:
            token, _ = await Operations(server.only, "run").create_token(len(devices), 600.0, "devices of ftte run")
        async with local_devices(server, devices, folder, token=token) as processes:
            (summary,) = await run_while_any_lives(server, processes)
            failed = await failed_devices(processes)
    show_summary(console, summary)
    console.print(f"summary and weights are in {config.run.state}", highlight=False)
    if ended:
        console.print(f"it had ended before: remove {config.run.state} and {folder} to begin anew", highlight=False)
    if failed:
        raise CoordinatorError(f"{', '.join(failed)} failed: see {folder / failed[0] / LOG_FILE}")
    return 0
