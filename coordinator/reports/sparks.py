"""A row of blocks that shows how a metric has gone, for terminals."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["BLOCKS", "draw_spark"]

BLOCKS = "▁▂▃▄▅▆▇█"


def draw_spark(values: Sequence[float]) -> str:
    """A block per value: between 0 and 1 where all are shares, as an accuracy, else between the least and the most."""
    if not values:
        return ""
    least, most = (0.0, 1.0) if min(values) >= 0 and max(values) <= 1 else (min(values), max(values))
    scale = len(BLOCKS) / (most - least or 1.0)
    return "".join(BLOCKS[min(int((value - least) * scale), len(BLOCKS) - 1)] for value in values)
