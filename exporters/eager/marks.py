"""How operators are told apart by the module that runs them."""

from __future__ import annotations

__all__ = ["FORWARD", "MODULE"]

# The model's module that an operator comes from, in ``node.meta["custom"]``.
MODULE = "module"
# What stands for the model itself, whose path is empty.
FORWARD = "forward"
