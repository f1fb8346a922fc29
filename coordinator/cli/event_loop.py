"""The event loop that the coordinator runs on: uvloop where there is one, which is late half as long."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Coroutine
from typing import TypeVar

__all__ = ["run"]

_Result = TypeVar("_Result")


def run(main: Coroutine[None, None, _Result]) -> _Result:
    """Run ``main`` to its end in a new event loop, as :func:`asyncio.run` does."""
    # What was imported stays: no need to look through it again and again for what is garbage. Every update makes a few
    # hundred objects, nearly all of which go without the collector's help.
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
    try:
        import uvloop
    except ImportError:  # Windows has none
        return asyncio.run(main)
    return uvloop.run(main)
