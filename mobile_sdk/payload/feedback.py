"""
Error feedback: what an update leaves out is added to the next one.

Without it, elements that are never among the largest would never be learnt (Karimireddy et al. 2019,
https://arxiv.org/abs/1901.09847).
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import safetensors
from ..errors import PayloadError
from ..layout import Arrays, Layout, Parameter, Subset, Vector
from .updates import decode_update

__all__ = ["carried_over", "left_out"]


def carried_over(update: Arrays, residual: bytes) -> dict[str, Vector]:
    """
    The update plus what earlier ones left out.

    Args:
        update: name -> float32 array in compact shape.
        residual: what :func:`left_out` gave; of another subset, or damaged, it counts for nothing.

    """
    earlier: dict[str, npt.NDArray[Any]] = {}
    with contextlib.suppress(PayloadError):
        earlier = safetensors.loads(residual)[0]
    if {n: a.shape for n, a in earlier.items()} != {n: a.shape for n, a in update.items()}:
        return dict(update)
    return {name: array + earlier[name].astype(np.float32) for name, array in update.items()}


def left_out(update: Arrays, arrays: Mapping[str, npt.NDArray[Any]], metadata: Mapping[str, str]) -> bytes:
    """
    What is missing in the packed form of ``update``, as a safetensors file.

    Args:
        update: name -> float32 array in compact shape, before it was packed.
        arrays: its packed form, as :func:`~mobile_sdk.payload.updates.encode_update` gives it.
        metadata: of the packed form.

    """
    layout = Layout([Parameter(name, array.shape) for name, array in update.items()])
    sent = decode_update(arrays, metadata, Subset.whole(layout))
    return safetensors.dumps({name: update[name] - array for name, array in sent})
