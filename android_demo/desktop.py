"""
``make demo-app``: the phone's app in a window, beside a coordinator and three other devices on this machine.

Everything is a process of its own, started as a user would start it; all end with the window, or with this process.
A second start goes on where the first ended, with the same devices; ``--new`` begins anew.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

from coordinator.cli.demo_folder import clear_demo_folder
from coordinator.errors import CoordinatorError
from mobile_sdk.invite import Invite

__all__ = ["main"]

DEMO = Path(__file__).resolve().parent
BIN = Path(sys.executable).parent
FOLDER = Path("ftte-demo-app")

# Runs until the window is closed; the same few devices as in `make demo`, with room for the phone.
RUN_FILE = """\
[run]
name = "digits"
task = "exporters.zoo.digits:personal"

[server]
port = 0

[budgets]
small = "1MB"
medium = "2MB"
large = "4MB"

[training]
epochs = 1
batch_size = 16
learning_rate = 0.01

# As a phone would send them: 8-bit integers.
[payload]
update = "int8"

[merge]
buffer = 3
"""
OTHERS = 3
STEP_SECONDS = 0.25
# How often it is looked whether a process has died.
WATCH_SECONDS = 1.0

Helpers = dict[str, subprocess.Popen[str]]


def main(arguments: list[str] | None = None) -> int:
    """Run the demo; the exit code is the app's."""
    parser = argparse.ArgumentParser(prog="make demo-app", description=__doc__)
    parser.add_argument("--new", action="store_true", help="forget what an earlier start has learned")
    options = parser.parse_args(arguments)
    if "DISPLAY" not in os.environ and "WAYLAND_DISPLAY" not in os.environ:
        print("make demo-app opens a window, and there is no screen: set DISPLAY, or run it under xvfb-run")
        return 1
    for signum in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(signum, _leave)  # so that no process is left behind
    try:
        if options.new or not FOLDER.exists():
            clear_demo_folder(FOLDER, folders=("state", "devices"), remedy=f"rename {FOLDER}, and start again")
    except CoordinatorError as error:
        print(error)
        return 1
    (FOLDER / "run.toml").write_text(RUN_FILE)
    print("planning programs for three memory budgets: about a minute, the first time", flush=True)
    with _coordinator() as (coordinator, invite), _others(invite) as devices:
        print(f"the app opens; a phone would join with\n  {invite}", flush=True)
        folder = str((FOLDER / "devices" / "phone").resolve())
        environment = os.environ | {"FTTE_DEMO_FOLDER": folder, "FTTE_DEMO_JOIN": "1"}
        environment |= {"FTTE_DEMO_STEP_SECONDS": str(STEP_SECONDS)}
        app = subprocess.Popen([sys.executable, DEMO / "main.py", str(invite)], env=environment)
        try:
            return _until_closed(app, {"the coordinator": coordinator, **devices})
        finally:
            app.terminate()
            app.wait()


def _leave(signum: int, frame: object) -> None:
    raise SystemExit(128 + signum)


def _until_closed(app: subprocess.Popen[bytes], helpers: Helpers) -> int:
    """Wait for the app, and say so where another process ends before it."""
    while True:
        try:
            return app.wait(WATCH_SECONDS)
        except subprocess.TimeoutExpired:
            for name, process in list(helpers.items()):
                if process.poll() is not None:
                    del helpers[name]
                    print(f"{name} has ended with the exit code {process.returncode}: see {_log(name)}", flush=True)


def _log(name: str) -> Path:
    return FOLDER / "devices" / name / "log.txt" if name.startswith("device") else FOLDER / "serve.log"


@contextlib.contextmanager
def _coordinator() -> Iterator[tuple[subprocess.Popen[str], Invite]]:
    """``ftte serve``, until left, and what it invites with."""
    with _log("the coordinator").open("w") as log:
        process = subprocess.Popen(
            [BIN / "ftte", "serve", FOLDER / "run.toml"], stdout=subprocess.PIPE, stderr=log, text=True
        )
        assert process.stdout is not None
        # What it prints later goes to its log: a full pipe would stop it.
        rest = threading.Thread(target=shutil.copyfileobj, args=(process.stdout, log))
        try:
            invite = _announced(process.stdout)
            rest.start()
            yield process, invite
        finally:
            process.terminate()
            process.wait()
            if rest.ident is not None:
                rest.join()


def _announced(lines: Iterable[str]) -> Invite:
    """From the command for joining, which the coordinator prints when it listens; until then, show how far it is."""
    for line in lines:
        found = re.search(r"join (\S+) --run (\S+) --key ([0-9a-f]{64})", line)
        if found is not None:
            return Invite(*found.groups())
        if "Join it with" not in line:  # the app does
            print(f"  {line}", end="", flush=True)
    raise SystemExit(f"the coordinator did not start: see above, and {FOLDER / 'serve.log'}")


@contextlib.contextmanager
def _others(invite: Invite) -> Iterator[Helpers]:
    """Other devices, each with its part of the digits; by name."""
    processes: Helpers = {}
    try:
        for index in range(OTHERS):
            name = f"device-{index + 1}"
            storage = FOLDER / "devices" / name
            storage.mkdir(parents=True, exist_ok=True)
            command: list[str | Path] = [
                *(BIN / "ftte-device", "join", invite.url, "--run", invite.run, "--key", invite.key),
                *("--data", f"exporters.zoo.digits_data:part({index}, of={OTHERS + 1})"),
                *("--name", name, "--storage", storage, "--step-time", str(STEP_SECONDS)),
            ]
            with _log(name).open("w") as log:
                processes[name] = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, text=True)
        yield processes
    finally:
        for process in processes.values():
            process.terminate()
        for process in processes.values():
            process.wait()


if __name__ == "__main__":
    sys.exit(main())
