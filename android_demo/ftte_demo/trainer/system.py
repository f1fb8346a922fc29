"""What the trainer needs of the system that it runs on, and a desktop in its place."""

from __future__ import annotations

import locale
from collections.abc import Callable
from typing import Protocol

__all__ = ["Desktop", "System"]


class System(Protocol):
    """
    Android, or a desktop.

    ``phone`` tells whether there are a battery, a data plan, and a day's limit of service time.
    """

    phone: bool

    def is_visit(self) -> bool:
        """Whether the process was started for one visit only, and nobody has asked for more since."""
        ...

    def on_stop(self, stop: Callable[[], None]) -> None:
        """Call ``stop``, in any thread, when the system or the user wants the process to end."""
        ...

    def stop_reason(self) -> str:
        """Why it wants that: ``"stopped"`` by the user, ``"limit"``, ``"job"``, or empty."""
        ...

    def show(self, text: str, done: int, of: int, stop_text: str) -> None:
        """Show a line and a bar of ``done`` of ``of`` outside the app; no bar where ``of`` is 0."""
        ...

    def work(self, unmetered: bool, seconds: float) -> None:
        """Stay awake for an assignment, at most so long; with ``unmetered`` the Wi-Fi, too. Again: longer."""
        ...

    def rest(self) -> None:
        """Sleep may come."""
        ...

    def visit_when(self, charging: bool, unmetered: bool, battery: bool) -> None:
        """Begin a visit from time to time while these hold, also when this process is gone."""
        ...

    def visit_no_more(self) -> None:
        """Begin no visits."""
        ...

    def language(self) -> str:
        """The system's language as two letters."""
        ...

    def end(self) -> None:
        """The trainer has nothing open any more: the process may go."""
        ...


class Desktop:
    """A process among others: nothing limits it, and it begins when the app is opened."""

    phone = False

    def is_visit(self) -> bool:
        return False

    def on_stop(self, stop: Callable[[], None]) -> None:
        """Signals do that."""

    def stop_reason(self) -> str:
        return ""

    def show(self, text: str, done: int, of: int, stop_text: str) -> None:
        """The app is there."""

    def work(self, unmetered: bool, seconds: float) -> None:
        """A desktop stays awake."""

    def rest(self) -> None:
        """A desktop stays awake."""

    def visit_when(self, charging: bool, unmetered: bool, battery: bool) -> None:
        """The app is opened by hand."""

    def visit_no_more(self) -> None:
        """There are none."""

    def language(self) -> str:
        return (locale.getlocale()[0] or "en")[:2].lower()

    def end(self) -> None:
        """The interpreter ends."""
