"""Where there is no Linux, what makes or runs programs is refused in one sentence, with a command that works."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from coordinator.cli.linux_commands import LINUX_COMMANDS, require_linux
from coordinator.cli.main import GROUPS
from mobile_sdk.system.support import runs_native_programs
from tests.mobile_sdk.system.other_systems import as_on

# In a fresh interpreter: what a system lacks is missing when our modules are imported.
CODE = """
import json, signal, sys
from tests.mobile_sdk.system.other_systems import as_on
from tests.mobile_sdk.system.test_other_systems import msvcrt
import aiohttp, asyncio, concurrent.futures, ctypes, getpass, numpy, pydantic, rich.console, segno, ssl, subprocess
import tempfile, websockets.asyncio.client
system, commands = sys.argv[1], json.loads(sys.argv[2])
signal.SIGBREAK = signal.SIGTERM
with as_on(system, {"msvcrt": msvcrt()} if system == "win32" else None):
    from coordinator.cli.main import main
    for command in commands:
        print(main(command), file=sys.stderr)
assert "torch" not in sys.modules
"""
ROOT = Path(__file__).parents[3]


def answers(system: str, *commands: list[str]) -> list[str]:
    """What ``ftte`` says to each command on ``system``, and its exit code, in turn."""
    done = subprocess.run(
        [sys.executable, "-c", CODE, system, json.dumps(commands)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr.splitlines()


def test_on_windows_every_such_command_names_itself_for_wsl_and_for_the_image() -> None:
    lines = answers(
        "win32",
        ["serve", "runs\\digits.toml"],
        ["export", "my:task", "-o", "out"],
        ["plan", "my:task", "--budgets", "1MB", "--out", "out"],
        ["simulate", "scenario.toml"],
        ["demo"],
        ["--verbose", "doctor", "run.toml"],
    )
    assert lines[1::2] == ["1"] * 6
    assert lines[0] == (
        "ftte: `ftte serve` does not run on Windows itself: install FTTE in WSL (`wsl --install`) and run "
        "`wsl ftte serve runs/digits.toml`, or build the image of deploy/Dockerfile and run "
        "`docker run --rm -it -p 8765:8765 -v .:/runs ftte serve runs/digits.toml`"
    )
    for line, command in zip(lines[2::2], ("export", "plan", "simulate", "demo", "doctor"), strict=True):
        assert f"`ftte {command}` does not run on Windows itself" in line
        assert "`wsl ftte " in line
        assert "`docker run --rm -it -v .:/runs ftte " in line


def test_on_a_mac_with_intels_processor_the_image_is_named() -> None:
    """ExecuTorch has no runtime for it."""
    (sentence, code) = answers("darwin", ["plan", "my:task", "--budgets", "1MB", "--out", "out"])
    assert code == "1"
    assert "does not run on a Mac with Intel's processor" in sentence
    assert "`docker run --rm -it -v .:/runs ftte plan my:task --budgets 1MB --out out`" in sentence


def test_a_mac_with_apples_processor_refuses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    with as_on("darwin"):
        assert runs_native_programs()
        for command in LINUX_COMMANDS:
            require_linux([command])


def test_the_operators_commands_run_on_windows(tmp_path: Path) -> None:
    """They ask the coordinator at its address; here there is none, and that is what is said."""
    sentence, code = answers("win32", ["runs", "--admin", str(tmp_path)])
    assert (sentence.startswith("ftte: no coordinator runs with the admin folder"), code) == (True, "1")


def test_linux_refuses_nothing() -> None:
    assert runs_native_programs()
    for command in LINUX_COMMANDS:
        require_linux([command])


@pytest.mark.parametrize("command", LINUX_COMMANDS)
def test_what_is_refused_is_a_command(command: str) -> None:
    assert command in {name for names in GROUPS.values() for name in names}
