"""
Masks of dropout, drawn on the device.

A program draws no random numbers: where the model has dropout, ``train_step`` takes a mask as an input of the role
``dropout``, with the probability ``keep`` that an element is kept. A mask holds ``1 / keep`` there and 0 elsewhere, so
ones everywhere turn dropout off, exactly.

Masks come from a generator that is seeded with the assignment's seed: in each step, for every such input in the order
of the call, ``generator.random(shape, dtype=float32) < keep``, divided by ``keep``. PCG64 and this rule fix them on
every platform.
"""

from __future__ import annotations

import numpy as np

from ..layout import Vector
from ..manifest import TensorSpec

__all__ = ["draw", "generator"]


def generator(seed: int) -> np.random.Generator:
    """The generator of an assignment's masks; the order of its samples comes from another."""
    return np.random.default_rng([seed, 1])


def draw(spec: TensorSpec, source: np.random.Generator | None, mask: Vector) -> None:
    """
    Fill ``mask``, float32 of ``spec.shape``; with ones where there is no ``source``.

    Args:
        spec: shape, and the probability of keeping an element.
        source: the generator of a training; :obj:`None` turns dropout off.
        mask: float32, shape ``spec.shape``, overwritten with 0 and ``1 / keep``.

    """
    if source is None:
        mask.fill(1.0)
        return
    source.random(dtype=np.float32, out=mask)
    np.less(mask, np.float32(spec.keep), out=mask, casting="unsafe")
    mask /= np.float32(spec.keep)
