"""
Samples of several arrays (token ids and their mask, an image and its metadata) as one array of records.

A task may take a dict or a tuple of arrays for x, for y, or for both. Everything between an app's samples and the
engine handles them as one numpy array whose dtype names the parts, so a batch is picked, stacked, stored and sent like
any other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import DataError

__all__ = ["is_several", "join", "join_sample", "named_in", "parts"]

Array = npt.NDArray[Any]


def is_several(value: object) -> bool:
    """Whether ``value`` is a dict, or a tuple of arrays: parts that belong together."""
    return isinstance(value, Mapping) or (
        isinstance(value, tuple) and len(value) > 0 and all(isinstance(v, np.ndarray) for v in value)
    )


def _named(value: Any) -> dict[str, Array]:
    pairs = value.items() if isinstance(value, Mapping) else enumerate(value)
    return {str(name): np.asarray(part) for name, part in pairs}


def join(value: Any) -> Array:
    """
    A batch as one array.

    Args:
        value: an array of shape (n, ...), which stays as it is; or a dict or tuple of such arrays, which become one of
            shape (n,) whose dtype has a field for each: by its name, or by its number in the tuple.

    Raises:
        DataError: if the parts differ in how many samples they have.

    """
    if not is_several(value):
        return np.asarray(value)
    named = _named(value)
    lengths = {name: part.shape[0] if part.ndim else None for name, part in named.items()}
    if len(set(lengths.values())) != 1 or None in lengths.values():
        raise DataError(f"the arrays of a batch differ in how many samples they have: {lengths}")
    dtype = np.dtype([(name, part.dtype, part.shape[1:]) for name, part in named.items()])
    result = np.empty(next(iter(named.values())).shape[0], dtype)
    for name, part in named.items():
        result[name] = part
    return result


def join_sample(value: Any) -> Array:
    """As :func:`join`, of one sample: arrays without the axis of samples."""
    if not is_several(value):
        return np.asarray(value)
    named = {name: part[None] for name, part in _named(value).items()}
    return np.asarray(join(named)[0])


def named_in(arrays: Mapping[str, Array], name: str) -> Array:
    """
    The batch ``name`` of a file of arrays: the array of that name, or those of ``name.PART`` as one.

    Raises:
        KeyError: if the file has neither.

    """
    if name in arrays:
        return arrays[name]
    found = {key.removeprefix(f"{name}."): arrays[key] for key in arrays if key.startswith(f"{name}.")}
    if not found:
        raise KeyError(name)
    return join(found)


def parts(array: Array) -> dict[str, Array]:
    """Name -> array, for every field; a plain array is one of no name."""
    return {name: array[name] for name in array.dtype.names} if array.dtype.names else {"": array}
