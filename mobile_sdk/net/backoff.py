"""How long to wait before trying again."""

from __future__ import annotations

import random
from collections.abc import Iterator

__all__ = ["delays"]

FIRST_SECONDS = 0.5
LONGEST_SECONDS = 60.0


def delays(rng: random.Random) -> Iterator[float]:
    """
    Seconds to wait before each next try, without end.

    Doubling with full jitter, so that a thousand devices do not come back in the same second.
    """
    ceiling = FIRST_SECONDS
    while True:
        yield rng.uniform(ceiling / 2, ceiling)
        ceiling = min(2 * ceiling, LONGEST_SECONDS)
