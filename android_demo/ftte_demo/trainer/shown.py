"""Where the system shows what the trainer does while the app is away: Android's notification."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

__all__ = ["Shown"]


class Shown(Protocol):
    """A line of text, a bar, and a button."""

    def on_stop(self, stop: Callable[[], None]) -> None:
        """Call ``stop``, in any thread, when the button is pressed."""
        ...

    def show(self, text: str, done: int, of: int, stop_text: str) -> None:
        """Show a line and a bar of ``done`` of ``of``; no bar where ``of`` is 0."""
        ...
