"""The processes of a trial, each with a log over all its restarts."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

__all__ = ["BIN", "Processes", "count_accepted", "join_command"]

BIN = Path(sys.executable).parent


class Processes:
    """
    Processes by their names.

    Args:
        folder: for the logs.
        environment: of the processes, beside this one's.

    """

    def __init__(self, folder: Path, environment: dict[str, str] | None = None) -> None:
        self._folder = folder
        self._environment = {**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})}
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, command: Sequence[str | Path]) -> None:
        """Start one; it ends with this process, even if that is killed."""
        if shutil.which("setpriv"):
            command = ["setpriv", "--pdeathsig", "KILL", *command]
        with self.log(name).open("ab") as log:
            self._running[name] = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=self._environment)

    def pid(self, name: str) -> int:
        """Its number."""
        return self._running[name].pid

    def code(self, name: str) -> int | None:
        """The code with which it has ended, if it has."""
        return self._running[name].poll()

    def kill(self, name: str) -> None:
        """SIGKILL; returns when it has ended."""
        self._running[name].kill()
        self._running[name].wait()

    def send(self, name: str, number: signal.Signals) -> None:
        """Send a signal, unless it has ended."""
        self._running[name].send_signal(number)

    def end(self, name: str, seconds: float, *, may_fail: bool = False) -> None:
        """
        Tell it to end, and wait until it has; with ``may_fail`` it may end with an error of its own.

        Raises:
            AssertionError: if it does not end, or ends with an error.

        """
        process = self._running[name]
        process.send_signal(signal.SIGTERM)
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{name} does not end when it is told to") from None
        if code not in (0, 130, -signal.SIGTERM) and not (may_fail and code == 1):
            raise AssertionError(f"{name} ended with {code}: see {self.log(name)}")

    def kill_all(self) -> None:
        """Leave none."""
        for name in self._running:
            self.kill(name)

    def log(self, name: str) -> Path:
        """The file of all that it has printed."""
        return self._folder / f"{name}.log"

    def printed(self, name: str) -> str:
        """All that it has printed, over all its restarts."""
        return self.log(name).read_text(errors="replace") if self.log(name).exists() else ""


def join_command(address: str, key: str, name: str, storage: Path) -> list[str | Path]:
    """A device of the run ``digits``; its name ends with ``-NUMBER``, which chooses its samples and its budget."""
    number = int(name.rpartition("-")[2])
    return [
        *(BIN / "ftte-device", "join", address, "--run", "digits", "--key", key, "--name", name),
        *("--data", f"exporters.zoo.digits_data:part({number}, of=8)", "--storage", storage),
        *("--engine", "interpreted", "--step-time", "0.02"),
        *("--budget", "1.5MB" if number % 2 else "6MB"),
    ]


def count_accepted(log: Path) -> int:
    """How many updates a device heard to be accepted."""
    return log.read_bytes().count(b": accepted") if log.exists() else 0
