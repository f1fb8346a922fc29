"""How far a command has come: bars on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

__all__ = ["StageProgress"]

# Between two lines about the same stage.
LINE_SECONDS = 10.0


class StageProgress:
    """
    The stages of a long command.

    Args:
        console: where to.
        as_json: say nothing: whoever asked for JSON is no person.
        now: a monotonic time in seconds.

    """

    def __init__(self, console: Console, *, as_json: bool = False, now: Callable[[], float] = time.monotonic) -> None:
        self._console = Console(quiet=True) if as_json else console
        self._now = now
        self._stage, self._shown = "", 0.0
        self._bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
            disable=as_json or not self._console.is_terminal,
        )
        self._bar = self._bars.add_task("", total=None)

    def __enter__(self) -> StageProgress:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def say(self, stage: str) -> None:
        """A stage has begun."""
        self.show(stage, 0, None)

    def show(self, stage: str, done: int, total: int | None) -> None:
        """
        How far a stage is.

        Args:
            stage: what is being done.
            done: how much of it is.
            total: how much there is, if that is known.

        """
        if self._console.is_terminal:
            self._bars.update(self._bar, description=stage, completed=done, total=total)
            return
        now = self._now()
        if stage != self._stage or now - self._shown >= LINE_SECONDS:
            self._stage, self._shown = stage, now
            words = stage if total is None else f"{stage}: {done} of {total}"
            self._console.print(words, highlight=False, markup=False, soft_wrap=True)
