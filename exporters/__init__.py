"""
FTTE's exporter: a model in, a verified training program for small devices out.

Names are imported when first used, so that a device process can read ``exporters.zoo.digits_data`` without torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .errors import BudgetError, ExportError, TaskError
    from .pipeline import export
    from .plan import Plan
    from .program.build import Program
    from .task import Task, load_task

__all__ = [
    "BudgetError",
    "ExportError",
    "Plan",
    "Program",
    "Task",
    "TaskError",
    "export",
    "load_task",
]

_HOMES = {
    "BudgetError": "errors",
    "ExportError": "errors",
    "Plan": "plan",
    "Program": "program.build",
    "Task": "task",
    "TaskError": "errors",
    "export": "pipeline",
    "load_task": "task",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
