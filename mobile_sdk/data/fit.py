"""Samples in the dtype that a task takes, where that changes no value but by rounding."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import DataError
from ..fields import join, join_sample, parts
from ..manifest import InputContract

__all__ = ["fit_dtype", "fit_parts"]


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
        with np.errstate(over="ignore"):  # what is too large is not finite then, and found as such
            return array.astype(wanted)
    if np.issubdtype(array.dtype, np.integer) or array.dtype == np.bool_:
        fitted = array.astype(wanted)
        # Back again, they are the same, and none has lost or got a sign on the way.
        if (fitted.astype(array.dtype) == array).all() and ((fitted < 0) == (array < 0)).all():
            return fitted
        raise DataError(f"{name} has values that {wanted} cannot hold")
    kind = f"text ({array.dtype})" if array.dtype.kind in "SU" else str(array.dtype)
    raise DataError(f"{name} is {kind}; the task takes {wanted}")


def fit_parts(array: npt.NDArray[Any], name: str, contract: InputContract) -> npt.NDArray[Any]:
    """
    ``x`` or ``y``, a batch or a sample, with the dtype of the task, or with that of each of its parts.

    Raises:
        DataError: as :func:`fit_dtype`, or if the parts are others than the task's.

    """
    wanted, given = contract.parts(name), parts(array)
    if sorted(given) != sorted(part.name for part in wanted):
        has, takes = (", ".join(names) or "one array" for names in (filter(None, given), (p.name for p in wanted)))
        raise DataError(f"{name} has {has}; the task takes {takes}")
    if not array.dtype.names:
        return fit_dtype(array, wanted[0].dtype, name)
    fitted = {part.name: fit_dtype(given[part.name], part.dtype, f"{name}[{part.name!r}]") for part in wanted}
    return join(fitted) if array.ndim else join_sample(fitted)
