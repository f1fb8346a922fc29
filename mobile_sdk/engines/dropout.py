"""
Random numbers of a training step, drawn on the device: masks of dropout, and what else a model draws.

A program draws no random numbers: where the model has dropout, ``train_step`` takes a mask as an input of the role
``dropout``, with the probability ``keep`` that an element is kept. A mask holds ``1 / keep`` there and 0 elsewhere, so
ones everywhere turn dropout off, exactly.

Other draws of a model (noise, Gumbel's) are inputs of the roles ``normal``, ``uniform`` and ``exponential``, standard
ones: ``generator.standard_normal``, ``random`` and ``standard_exponential``, float32. Without a generator they have the
median of their distribution: 0, 1/2 and log 2.

Masks come from a generator that is seeded with the assignment's seed: in each step, for every such input in the order
of the call, ``generator.random(shape, dtype=float32) < keep``, divided by ``keep``. PCG64 and this rule fix them on
every platform.
"""

from __future__ import annotations

import math

import numpy as np

from ..layout import Vector
from ..manifest import TensorSpec

__all__ = ["DRAWN", "MEDIANS", "draw", "generator"]

MEDIANS = {"dropout": 1.0, "normal": 0.0, "uniform": 0.5, "exponential": math.log(2)}
# Roles of inputs that are drawn.
DRAWN = tuple(MEDIANS)


def generator(seed: int) -> np.random.Generator:
    """The generator of an assignment's masks; the order of its samples comes from another."""
    return np.random.default_rng([seed, 1])


def draw(spec: TensorSpec, source: np.random.Generator | None, mask: Vector) -> None:
    """
    Fill ``mask``, float32 of ``spec.shape``; where there is no ``source``, with the role's median.

    Args:
        spec: shape, and the probability of keeping an element.
        source: the generator of a training; :obj:`None` turns dropout off, and gives others their median.
        mask: float32, shape ``spec.shape``, overwritten: a mask's with 0 and ``1 / keep``.

    """
    if source is None:
        mask.fill(MEDIANS[spec.role])
        return
    if spec.role == "normal":
        source.standard_normal(dtype=np.float32, out=mask)
        return
    if spec.role == "exponential":
        source.standard_exponential(dtype=np.float32, out=mask)
        # The logarithm of zero is no number.
        np.maximum(mask, np.finfo(np.float32).tiny, out=mask)
        return
    if spec.role == "uniform":
        source.random(dtype=np.float32, out=mask)
        return
    source.random(dtype=np.float32, out=mask)
    np.less(mask, np.float32(spec.keep), out=mask, casting="unsafe")
    mask /= np.float32(spec.keep)
