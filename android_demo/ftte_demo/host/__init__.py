"""The system below the app: Android, or a desktop that stands for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from kivy.utils import platform

__all__ = ["Host", "this_host"]


class Host(Protocol):
    """
    What the app needs of the system.

    ``folder`` is the app's private folder; the trainer's process uses the same.
    """

    folder: Path

    def start_trainer(self) -> None:
        """Start the trainer's process; one that runs already goes on instead. Nothing happens where it may not now."""
        ...

    def visits(self) -> bool:
        """Whether training begins again by itself when the phone's state allows it."""
        ...

    def language(self) -> str:
        """The system's language as two letters."""
        ...

    def left(self) -> None:
        """The app's window was closed by the user."""
        ...

    def ask_permissions(self, denied: Callable[[], None]) -> None:
        """Ask for what the system wants to be asked; ``denied`` is called, in any thread, unless the user says yes."""
        ...

    def on_invitation(self, opened: Callable[[str], None]) -> None:
        """Call ``opened``, in any thread, with each invitation that is opened; the one that started the app, too."""
        ...

    def prefers_dark(self) -> bool:
        """Whether the system shows dark colours."""
        ...

    def insets(self) -> list[float]:
        """Pixels at the left, top, right and bottom that the system's bars cover."""
        ...

    def versions(self) -> dict[str, str]:
        """Names and versions of what is installed."""
        ...

    def share_log(self) -> str:
        """Offer the log to other apps; returns where it is."""
        ...


def this_host(arguments: list[str]) -> Host:
    """The host of the system that the app was started on."""
    if platform == "android":
        from .android import AndroidHost

        return AndroidHost()
    from .desktop import DesktopHost

    return DesktopHost(arguments)
