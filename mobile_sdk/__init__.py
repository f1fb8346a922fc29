"""FTTE's SDK: what runs on a device. Needs numpy and websockets, and no torch."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .version import __version__

if TYPE_CHECKING:
    from . import events
    from .blocking import BlockingClient
    from .client import Client
    from .data import ArrayDataset, FolderDataset, SampleStore, SequenceDataset
    from .engines import load_engine
    from .errors import FtteError
    from .net.connection import Transport
    from .participation.surroundings import Surroundings
    from .policy.rules import Policy

# Loaded when first used: importing the SDK must cost an app next to nothing.
_HOMES = {
    "ArrayDataset": "data",
    "BlockingClient": "blocking",
    "Client": "client",
    "FolderDataset": "data",
    "FtteError": "errors",
    "Policy": "policy.rules",
    "SampleStore": "data",
    "SequenceDataset": "data",
    "Surroundings": "participation.surroundings",
    "Transport": "net.connection",
    "load_engine": "engines",
}

__all__ = [
    "ArrayDataset",
    "BlockingClient",
    "Client",
    "FolderDataset",
    "FtteError",
    "Policy",
    "SampleStore",
    "SequenceDataset",
    "Surroundings",
    "Transport",
    "__version__",
    "events",
    "load_engine",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
    if name == "events":
        return importlib.import_module(".events", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
