"""Updates of which only the largest elements are sent: which they are, and where they belong."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import PayloadError
from ..layout import Arrays

__all__ = ["choose_largest", "fill", "place_arrays", "read_places"]


def choose_largest(update: Arrays, share: float) -> dict[str, npt.NDArray[np.intp]]:
    """
    Of the whole update's elements the ``share`` of the largest magnitude.

    Args:
        update: name -> float32 array in compact shape.
        share: above 0, at most 1.

    Returns:
        Name -> their positions in the flattened parameter: intp, ascending.

    """
    flat = np.concatenate([np.abs(array).reshape(-1) for array in update.values()])
    count = max(1, math.ceil(share * len(flat)))
    chosen = np.sort(np.argpartition(flat, len(flat) - count)[len(flat) - count :])
    result = {}
    start = 0
    for name, array in update.items():
        low, high = np.searchsorted(chosen, (start, start + array.size))
        result[name] = chosen[low:high] - start
        start += array.size
    return result


def place_arrays(name: str, positions: npt.NDArray[np.intp], size: int) -> dict[str, npt.NDArray[Any]]:
    """
    The array that says which elements of a parameter are sent: a mask or an index, whichever is shorter.

    Args:
        name: of the parameter.
        positions: intp, shape ``(k,)``, ascending.
        size: of the parameter, in elements.

    """
    if size / 8 < 4 * len(positions):
        mask = np.zeros(size, np.uint8)
        mask[positions] = 1
        return {f"{name}:mask": np.packbits(mask)}
    return {f"{name}:index": positions.astype(np.int32)}


def read_places(name: str, arrays: Mapping[str, npt.NDArray[Any]], size: int) -> npt.NDArray[np.intp] | None:
    """
    What :func:`place_arrays` gave, of a file that comes from a peer; none if all elements were sent.

    Args:
        name: of the parameter.
        arrays: of the file.
        size: of the parameter, in elements.

    Returns:
        intp, shape ``(k,)``, ascending.

    Raises:
        PayloadError: if the places are none of this parameter.

    """
    mask, index = arrays.get(f"{name}:mask"), arrays.get(f"{name}:index")
    if mask is not None and index is not None:
        raise PayloadError(f"{name!r} has both a mask and an index")
    if mask is not None:
        if mask.dtype != np.uint8 or mask.shape != ((size + 7) // 8,):
            raise PayloadError(f"the mask of {name!r} is {mask.dtype} of shape {mask.shape}, for {size} elements")
        return np.flatnonzero(np.unpackbits(mask)[:size])
    if index is not None:
        good = index.dtype == np.int32 and index.ndim == 1 and bool((np.diff(index) > 0).all())
        if not good or (len(index) and not 0 <= index[0] <= index[-1] < size):
            raise PayloadError(f"the index of {name!r} must be ascending int32 within its {size} elements")
        return index.astype(np.intp)
    return None


def fill(values: npt.NDArray[Any], positions: npt.NDArray[np.intp] | None, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """
    Values in their parameter; what was not sent is 0.

    Args:
        values: of any dtype, shape ``(k,)``.
        positions: theirs in the flattened parameter; none: they are all of it.
        shape: the parameter's compact shape.

    """
    if positions is None:
        return values.reshape(shape)
    full = np.zeros(math.prod(shape), values.dtype)
    full[positions] = values
    return full.reshape(shape)
