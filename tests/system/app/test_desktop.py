"""``make demo-app``: the app in a window beside a coordinator and three devices, started twice, ended by a signal."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ..conftest import PATIENCE, Process

# Three programs are planned, the first time.
PLANNING = 600.0
DESKTOP = Path(__file__).resolve().parents[3] / "android_demo" / "desktop.py"


@pytest.fixture
def start(tmp_path: Path, display: str) -> Iterator[Any]:
    """Starts ``make demo-app`` in a folder; whatever still runs at the end is stopped."""
    started: list[Process] = []

    def start() -> Process:
        environment = {"DISPLAY": display, "KIVY_HOME": str(tmp_path / "kivy"), "LIBGL_ALWAYS_SOFTWARE": "1"}
        os.chdir(tmp_path)
        process = Process(sys.executable, DESKTOP, log=tmp_path / "demo.log", environment=environment)
        started.append(process)
        return process

    before = Path.cwd()
    yield start
    os.chdir(before)
    for process in started:
        process.stop()


def family(pid: int) -> list[int]:
    """The process and all that it has started, and those in turn."""
    found = [pid]
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in children.read_text().split():
            found += family(int(child))
    return found


def left_of(pids: dict[int, str]) -> dict[int, str]:
    """What still runs after the moment in which helpers of ended processes notice that they are alone."""
    deadline = time.monotonic() + PATIENCE
    while True:
        left = {pid: words for pid, words in pids.items() if Path(f"/proc/{pid}").exists() and command(pid) == words}
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.05)  # other processes' children: there is nothing to await


def tell(pids: Iterable[int], signum: int) -> None:
    """What a terminal does that closes, or where somebody presses Ctrl-C: all that was started in it are told."""
    group = os.getpgid(0)
    for pid in [pid for pid in pids if os.getpgid(pid) == group]:
        os.kill(pid, signum)


def command(pid: int) -> str:
    """Its command line; empty if it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


@pytest.mark.full
@pytest.mark.parametrize(
    "signum", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT], ids=["terminated", "its terminal closed", "Ctrl-C"]
)
def test_it_leaves_no_process_behind_and_goes_on_with_the_same_devices(start: Any, tmp_path: Path, signum: int) -> None:
    folder = tmp_path / "ftte-demo-app"
    for _ in range(2):
        demo = start()
        demo.wait_for(r"the app opens", PLANNING)
        demo.wait_for(r"Start application main loop")
        everything = {pid: command(pid) for pid in family(demo.pid)}
        assert len(everything) >= 6
        tell([demo.pid] if signum == signal.SIGTERM else everything, signum)
        assert demo.wait() == 128 + signum
        assert not left_of(everything)
        assert "CRITICAL" not in demo.output
        assert "Traceback" not in demo.output
        said = (folder / "serve.log").read_text()
        assert "auth" not in said, said
    for index in (1, 2, 3):
        assert "connected as" in (folder / "devices" / f"device-{index}" / "log.txt").read_text()
