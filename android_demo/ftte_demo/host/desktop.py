"""A desktop in the place of a phone: the same app, the same trainer in a process of its own."""

from __future__ import annotations

import locale
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from .versions import versions

__all__ = ["DesktopHost"]


class DesktopHost:
    """
    Linux with a window.

    Args:
        arguments: of the command line: an invitation's link, or nothing.

    The folder is that of ``FTTE_DEMO_FOLDER``, else ``~/.local/share/ftte-demo``.
    """

    def __init__(self, arguments: list[str]) -> None:
        home = os.environ.get("FTTE_DEMO_FOLDER") or Path.home() / ".local" / "share" / "ftte-demo"
        self.folder = Path(home)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._links = [argument for argument in arguments if argument.startswith("ftte:")]
        self._trainer: subprocess.Popen[bytes] | None = None

    def start_trainer(self) -> None:
        if self._trainer is not None and self._trainer.poll() is None:
            return
        package = Path(__file__).resolve().parents[2]
        with (self.folder / "trainer.log").open("ab") as log:
            # A session of its own: it goes on when this process is killed, as a service does on a phone.
            self._trainer = subprocess.Popen(
                [sys.executable, "-m", "ftte_demo.trainer", str(self.folder)],
                cwd=package,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def visits(self) -> bool:
        return False

    def language(self) -> str:
        return (locale.getlocale()[0] or "en")[:2].lower()

    def left(self) -> None:
        if self._trainer is not None and self._trainer.poll() is None:
            self._trainer.terminate()
            self._trainer.wait()

    def ask_permissions(self, denied: Callable[[], None]) -> None:
        """A desktop asks for none."""

    def on_invitation(self, opened: Callable[[str], None]) -> None:
        for link in self._links:
            opened(link)

    def prefers_dark(self) -> bool:
        return False

    def insets(self) -> list[float]:
        return [0.0, 0.0, 0.0, 0.0]

    def versions(self) -> dict[str, str]:
        return versions()

    def share_log(self) -> str:
        return str(self.folder / "trainer.log")
