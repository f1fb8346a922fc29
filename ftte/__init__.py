"""
FTTE under one name: what a user imports, from the package that it belongs to.

``from ftte import Task, export`` needs the whole of FTTE; a device has ``mobile_sdk`` alone. Names are imported when
first used, so that neither torch nor a client is loaded for the other.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from exporters import BudgetError, ExportError, Plan, Program, Task, TaskError, export, load_task
    from mobile_sdk import BlockingClient, Client, Policy, SampleStore, load_engine
    from mobile_sdk.errors import FtteError
    from mobile_sdk.version import __version__

__all__ = [
    "BlockingClient",
    "BudgetError",
    "Client",
    "ExportError",
    "FtteError",
    "Plan",
    "Policy",
    "Program",
    "SampleStore",
    "Task",
    "TaskError",
    "__version__",
    "export",
    "load_engine",
    "load_task",
]

_HOMES = {
    **dict.fromkeys(
        ("BudgetError", "ExportError", "Plan", "Program", "Task", "TaskError", "export", "load_task"), "exporters"
    ),
    **dict.fromkeys(("BlockingClient", "Client", "Policy", "SampleStore", "load_engine"), "mobile_sdk"),
    "FtteError": "mobile_sdk.errors",
    "__version__": "mobile_sdk.version",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
