"""
What can go wrong at export, as exceptions.

    FtteError
    └── ExportError      no correct program can be made of the task
        ├── TaskError    the task contradicts itself or its example
        └── BudgetError  no plan fits the budget

"""

from __future__ import annotations

from mobile_sdk.errors import FtteError

__all__ = ["BudgetError", "ExportError", "TaskError", "one_line"]


def one_line(error: BaseException) -> str:
    """A foreign exception as part of a sentence: its kind, and the first line of what it says."""
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    said = lines[0][:200] if lines else ""
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


class ExportError(FtteError):
    """No program that gives the right gradients can be made of the task."""


class TaskError(ExportError):
    """A task contradicts itself or its example batch."""


class BudgetError(ExportError):
    """
    No plan fits the budget.

    ``smallest_bytes`` is the smallest budget that can be met.
    """

    def __init__(self, message: str, smallest_bytes: int) -> None:
        super().__init__(message)
        self.smallest_bytes = smallest_bytes

    def __reduce__(self) -> tuple[type[BudgetError], tuple[str, int]]:
        # Planning happens in worker processes, which hand their errors back.
        return BudgetError, (str(self), self.smallest_bytes)
