"""
Android as the trainer sees it, through the app's own Java classes in ``android_demo/java``.

Their methods have no overloads: for those pyjnius picks by the types of the arguments, and takes a Python text for a
String, never for the CharSequence that Android asks for. Importable on Android only; make it in the service's thread,
where Java's classes can be found.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jnius import PythonJavaClass, autoclass, java_method

__all__ = ["Android"]


class _Stop(PythonJavaClass):
    """A Runnable of Java's around a function."""

    __javainterfaces__ = ["java/lang/Runnable"]  # noqa: RUF012
    __javacontext__ = "app"

    def __init__(self, function: Callable[[], None]) -> None:
        super().__init__()
        self._function = function

    @java_method("()V")
    def run(self) -> None:
        self._function()


class Android:
    """The service of this process."""

    phone = True

    def __init__(self) -> None:
        self._service: Any = autoclass("org.ftte.demo.TrainingService").current
        self._visits: Any = autoclass("org.ftte.demo.VisitJob")
        self._stop: _Stop | None = None

    def is_visit(self) -> bool:
        return bool(self._service.isVisit())

    def on_stop(self, stop: Callable[[], None]) -> None:
        self._stop = _Stop(stop)  # kept: Java holds it weakly
        self._service.onStop(self._stop)

    def stop_reason(self) -> str:
        return str(self._service.stopReason())

    def show(self, text: str, done: int, of: int, stop_text: str) -> None:
        self._service.show(text, done, of, stop_text)

    def work(self, unmetered: bool, seconds: float) -> None:
        self._service.work(unmetered, int(seconds * 1000))

    def rest(self) -> None:
        self._service.rest()

    def visit_when(self, charging: bool, unmetered: bool, battery: bool) -> None:
        self._visits.schedule(self._service, charging, unmetered, battery, False)

    def visit_no_more(self) -> None:
        self._visits.cancel(self._service)

    def language(self) -> str:
        return str(self._service.language())

    def end(self) -> None:
        self._service.end()
