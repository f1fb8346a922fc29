"""The table of rewrites: which function replaces which ATen operator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch

__all__ = ["REWRITES", "lowers"]

Rewrite = Callable[..., Any]
_R = TypeVar("_R", bound=Rewrite)

REWRITES: dict[torch._ops.OpOverload, Rewrite] = {}


def lowers(*operators: torch._ops.OpOverload) -> Callable[[_R], _R]:
    """
    Register the decorated function as the replacement of ``operators``.

    It receives the operator's arguments, every tensor as a :class:`~exporters.lowering.values.Value`, and
    returns a value, or a tuple of them (:obj:`None` for outputs that nobody asked for).

    Raises:
        ValueError: if one of ``operators`` has a replacement already.

    """

    def register(function: _R) -> _R:
        for operator in operators:
            if operator in REWRITES:
                raise ValueError(f"{operator} has two rewrites")
            REWRITES[operator] = function
        return function

    return register
