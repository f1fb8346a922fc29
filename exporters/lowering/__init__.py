"""
The training lowering: a traced step in, the same function in forms that are fast and right on a device out.

Each module of this package holds the rewrites of one family of operators and says what they replace and why.
:func:`lower` walks the traced graph and applies them; an operator without a rewrite is refused, with the name
of the module of the model that it comes from.
"""

from __future__ import annotations

from .lower import decompositions, lower, prepare
from .marks import FORWARD, MODULE

__all__ = ["FORWARD", "MODULE", "decompositions", "lower", "prepare"]
