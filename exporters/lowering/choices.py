"""Which of several lowerings the layer at hand gets: set by the walk over the graph, asked by the rewrites."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator

__all__ = ["choice", "chosen", "tile_bytes"]

_choice: contextvars.ContextVar[str] = contextvars.ContextVar("choice", default="tiled")
_tile: contextvars.ContextVar[int] = contextvars.ContextVar("tile", default=0)


def choice() -> str:
    """One of :data:`exporters.plan.CHOICES`."""
    return _choice.get()


def tile_bytes() -> int:
    """What a tile of the net at hand may unroll."""
    return _tile.get()


@contextlib.contextmanager
def chosen(value: str, tile: int) -> Iterator[None]:
    """Lower what runs inside as ``value``, in tiles that unroll so many bytes."""
    tokens = _choice.set(value), _tile.set(tile)
    try:
        yield
    finally:
        _choice.reset(tokens[0])
        _tile.reset(tokens[1])
