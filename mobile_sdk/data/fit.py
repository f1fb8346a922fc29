"""Samples in the dtype that a task takes, where that changes no value but by rounding."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import DataError

__all__ = ["fit_dtype"]


def fit_dtype(array: npt.NDArray[Any], dtype: str, name: str) -> npt.NDArray[Any]:
    """
    The array with the task's dtype.

    Floats become floats of another width, and integers any dtype that holds each of them exactly. Floats never become
    integers: 0.5 is no label.

    Args:
        array: of any shape.
        dtype: what the task takes.
        name: what the array is, for the message.

    Raises:
        DataError: if the values would change.

    """
    wanted = np.dtype(dtype)
    if array.dtype == wanted:
        return array
    if np.issubdtype(array.dtype, np.floating) and np.issubdtype(wanted, np.floating):
        return array.astype(wanted)
    if np.issubdtype(array.dtype, np.integer) or array.dtype == np.bool_:
        fitted = array.astype(wanted)
        if (fitted.astype(array.dtype) == array).all():
            return fitted
        raise DataError(f"{name} has values that {wanted} cannot hold")
    raise DataError(f"{name} is {array.dtype}; the task takes {wanted}")
