"""FTTE's SDK: what runs on a device. Needs numpy and websockets, and no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .version import __version__

if TYPE_CHECKING:
    from .client import Client
    from .engines import load_engine

__all__ = ["Client", "__version__", "load_engine"]


def __getattr__(name: str) -> Any:
    # Loaded when first used: importing the SDK must cost an app next to nothing.
    if name == "Client":
        from .client import Client

        return Client
    if name == "load_engine":
        from .engines import load_engine

        return load_engine
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
