"""
``make demo-app``: the phone's app in a window, beside a coordinator and three other devices on this machine.

Everything is a process of its own, started as a user would start it; all end with the window.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

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

[merge]
buffer = 3
"""
OTHERS = 3
STEP_SECONDS = 0.1


def main() -> int:
    """Run the demo; the exit code is the app's."""
    if "DISPLAY" not in os.environ and "WAYLAND_DISPLAY" not in os.environ:
        print("make demo-app opens a window, and there is no screen: set DISPLAY, or run it under xvfb-run")
        return 1
    shutil.rmtree(FOLDER / "devices", ignore_errors=True)
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / "run.toml").write_text(RUN_FILE)
    print("planning programs for three memory budgets: about a minute, the first time")
    with _coordinator() as invite, _others(invite):
        print(f"the app opens; a phone would join with\n  {invite}")
        environment = os.environ | {"FTTE_DEMO_FOLDER": str((FOLDER / "devices" / "phone").resolve())}
        return subprocess.run([sys.executable, DEMO / "main.py", str(invite)], env=environment, check=False).returncode


@contextlib.contextmanager
def _coordinator() -> Iterator[Invite]:
    """``ftte serve``, until left; what it invites with."""
    with (FOLDER / "serve.log").open("w") as log:
        process = subprocess.Popen(
            [BIN / "ftte", "serve", FOLDER / "run.toml"], stdout=subprocess.PIPE, stderr=log, text=True
        )
        try:
            yield _announced(process)
        finally:
            process.terminate()
            process.wait()


def _announced(process: subprocess.Popen[str]) -> Invite:
    """From the command for joining, which the coordinator prints when it listens."""
    assert process.stdout is not None
    told = []
    for line in process.stdout:
        told.append(line)
        found = re.search(r"join (\S+) --run (\S+) --key ([0-9a-f]{64})", line)
        if found is not None:
            return Invite(*found.groups())
    raise SystemExit(f"the coordinator did not start: {''.join(told)}\nsee {FOLDER / 'serve.log'}")


@contextlib.contextmanager
def _others(invite: Invite) -> Iterator[None]:
    """Other devices, each with its part of the digits."""
    processes = []
    try:
        for index in range(OTHERS):
            storage = FOLDER / "devices" / f"device-{index + 1}"
            storage.mkdir(parents=True)
            command: list[str | Path] = [
                *(BIN / "ftte-device", "join", invite.url, "--run", invite.run, "--key", invite.key),
                *("--data", f"exporters.zoo.digits_data:part({index}, of={OTHERS + 1})"),
                *("--name", f"device-{index + 1}", "--storage", storage, "--step-time", str(STEP_SECONDS)),
            ]
            with (storage / "log.txt").open("w") as log:
                processes.append(subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT))
        yield
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait()


if __name__ == "__main__":
    sys.exit(main())
