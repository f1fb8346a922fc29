"""A window without a screen, the app in it, and a coordinator with the digits."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

DRIVER = Path(__file__).with_name("driver.py")
SHOTS = Path(__file__).resolve().parents[3] / "build" / "screenshots"


@pytest.fixture(scope="session")
def display() -> Iterator[str]:
    """A virtual screen."""
    if shutil.which("Xvfb") is None or importlib.util.find_spec("kivy") is None:
        pytest.skip("the app's tests need Kivy and Xvfb: pip install kivy, and apt-get install xvfb libgl1-mesa-dri")
    reading, writing = os.pipe()
    process = subprocess.Popen(
        ["Xvfb", "-displayfd", str(writing), "-screen", "0", "1280x1400x24", "-nolisten", "tcp"],
        pass_fds=[writing],
        stderr=subprocess.DEVNULL,
    )
    os.close(writing)
    with os.fdopen(reading) as pipe:
        number = pipe.readline().strip()
    try:
        yield f":{number}"
    finally:
        process.terminate()
        process.wait()


class AppError(AssertionError):
    """The app did not show or do what was awaited."""


class Phone:
    """The app in a window of its own, with its own storage."""

    def __init__(
        self,
        display: str,
        folder: Path,
        *arguments: str,
        window: str = "360x720",
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        variables = os.environ | {
            "DISPLAY": display,
            "FTTE_DEMO_FOLDER": str(folder),
            "KIVY_HOME": str(folder / "kivy"),
            "LIBGL_ALWAYS_SOFTWARE": "1",
            "DRIVER_WINDOW": window,
            "LANG": "C.UTF-8",
            **(environment or {}),
        }
        self._log = (folder / "app.log").open("ab")
        self._process = subprocess.Popen(
            [sys.executable, str(DRIVER), *arguments],
            env=variables,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        self._read()

    def _read(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise AppError(f"the app is gone: {(self.folder / 'app.log').read_text()[-2000:]}")
        answer = json.loads(line)
        if "error" in answer:
            raise AppError(answer["error"])
        return answer["answer"]

    def _do(self, what: str, **command: Any) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": what, **command}) + "\n")
        self._process.stdin.flush()
        return self._read()

    def texts(self) -> list[str]:
        return self._do("texts")

    def wait(self, text: str, *, part: bool = False, gone: bool = False, seconds: float = 60) -> str:
        return self._do("wait", text=text, part=part, gone=gone, seconds=seconds)

    def tap(self, text: str) -> None:
        self._do("tap", text=text)

    def tap_nav(self, text: str) -> None:
        self._do("nav", text=text)

    def type(self, hint: str, text: str) -> None:
        self._do("type", hint=hint, text=text)

    def draw(self, strokes: list[list[list[float]]]) -> None:
        self._do("draw", strokes=strokes)

    def open_link(self, link: str) -> None:
        """Open an invitation while the app runs, as the camera does; told in a thread that is not Kivy's."""
        self._do("open", link=link)

    def field(self, hint: str) -> str:
        """The text of a field."""
        return str(self._do("field", hint=hint))

    def shot(self, name: str) -> Path:
        SHOTS.mkdir(parents=True, exist_ok=True)
        return Path(self._do("shot", path=str(SHOTS / f"{name}.png")))

    def resize(self, width: int, height: int) -> None:
        self._do("resize", size=[width, height])

    def targets(self) -> list[tuple[str, float, float, float]]:
        return [tuple(target) for target in self._do("targets")]

    def frames(self) -> list[float]:
        return self._do("frames")

    def memory(self) -> int:
        return self._do("memory")

    def status(self) -> dict[str, Any]:
        return self._do("status")

    def next_status(self) -> dict[str, Any]:
        """The next one that the trainer tells; the newest if it is silent for a second."""
        return self._do("next_status")

    def trainer(self) -> int:
        """The trainer's process."""
        return self._do("trainer")

    def kill_trainer(self, signum: int) -> None:
        os.kill(self.trainer(), signum)

    def stop_trainer(self) -> None:
        """As the button of the notification does."""
        os.kill(self.trainer(), signal.SIGTERM)

    def kill(self) -> None:
        """As a system that is short of memory does, or a user who swipes the app away."""
        self._process.kill()
        self._process.wait()
        self._log.close()

    def close(self) -> None:
        """As a user who closes the window; the trainer is told to stop."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise
        finally:
            self._log.close()
