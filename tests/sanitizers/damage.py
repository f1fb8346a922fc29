"""Programs with damaged bytes, each from its number."""

from __future__ import annotations

import numpy as np

__all__ = ["KINDS", "damage"]

KINDS = ("bit", "word", "offset", "truncated", "block")


def damage(content: bytes, number: int) -> tuple[bytes, str]:
    """
    The program number ``number``, and what was done to it; the same number gives the same bytes.

    A bit flipped, four bytes at random, a word of the FlatBuffer (an offset, a length, a size) made huge or negative,
    the end cut off, or a block of the file copied over another one.
    """
    rng = np.random.default_rng([7, number])
    kind = KINDS[number % len(KINDS)]
    damaged = bytearray(content)
    at = int(rng.integers(len(content)))
    if kind == "bit":
        damaged[at] ^= 1 << int(rng.integers(8))
    elif kind == "word":
        damaged[at : at + 4] = rng.bytes(len(damaged[at : at + 4]))
    elif kind == "offset":
        at -= at % 4
        value = int(rng.choice([0x7FFFFFFF, 0xFFFFFFFF, 0x80000000, len(content), 2 * len(content), 0xFFFFFF00]))
        damaged[at : at + 4] = value.to_bytes(4, "little")
    elif kind == "truncated":
        del damaged[at:]
    else:
        length = int(rng.integers(4, 256))
        source = int(rng.integers(max(len(content) - length, 1)))
        damaged[at : at + length] = damaged[source : source + length]
        del damaged[len(content) :]
    return bytes(damaged), kind
