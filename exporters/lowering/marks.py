"""What the operators of a graph say about themselves, in ``node.meta["custom"]``."""

from __future__ import annotations

from torch import fx

from ..eager.marks import FORWARD, MODULE

__all__ = ["APART", "FORWARD", "MODULE", "TILE", "mark"]

# The number of the tile of the batch that an operator works on.
TILE = "tile"
# The operator is to run outside of delegates.
APART = "apart"


def mark(node: fx.Node, name: str) -> object:
    """What ``node`` says of ``name``; :obj:`None` if nothing."""
    custom: dict[str, object] = node.meta.get("custom", {})
    return custom.get(name)
