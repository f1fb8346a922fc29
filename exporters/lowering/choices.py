"""Which of several lowerings the layer at hand gets: set by the walk over the graph, asked by the rewrites."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator

__all__ = ["choice", "chosen"]

_choice: contextvars.ContextVar[str] = contextvars.ContextVar("choice", default="tiled")


def choice() -> str:
    """One of :data:`exporters.plan.CHOICES`."""
    return _choice.get()


@contextlib.contextmanager
def chosen(value: str) -> Iterator[None]:
    """Lower what runs inside as ``value``."""
    token = _choice.set(value)
    try:
        yield
    finally:
        _choice.reset(token)
