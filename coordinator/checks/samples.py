"""The data that a task's own functions give, against the task's contract, before anything is planned."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from exporters.errors import TaskError
from exporters.task import Task
from mobile_sdk.data import ArrayDataset
from mobile_sdk.data.check import check
from mobile_sdk.data.fit import fit_dtype
from mobile_sdk.errors import DataError

__all__ = ["fit_samples"]


def fit_samples(task: Task, samples: Any, what: str) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """
    Samples as arrays of the shapes and dtypes that the task takes.

    Args:
        task: the task.
        samples: a pair ``(x, y)`` of arrays or tensors of shapes ``(n, ...)``.
        what: what they are, for messages, such as ``"the held-out data"``.

    Raises:
        TaskError: if they are none, do not fit the contract, or are not finite; it names the sample.

    """
    if not isinstance(samples, tuple | list) or len(samples) != 2:
        raise TaskError(f"{what} must be a pair (x, y) of arrays, not a {type(samples).__name__}")
    contract = task.contract
    try:
        x = fit_dtype(_array(samples[0]), contract.x_dtype, "x")
        y = fit_dtype(_array(samples[1]), contract.y_dtype, "y")
        if x.ndim < 1 or y.ndim < 1:
            raise DataError("x and y must count samples on their first axis")
        for name, array, shape in (("x", x, contract.x_shape), ("y", y, contract.y_shape)):
            if array.shape[1:] != shape:
                raise DataError(f"{name} has the shape {array.shape}; the task takes (n, {', '.join(map(str, shape))})")
            if np.issubdtype(array.dtype, np.floating):
                bad = ~np.isfinite(array.reshape(len(array), -1)).all(axis=1)
                if bad.any():
                    raise DataError(f"sample {int(np.argmax(bad))} has {_an(name)} that is not finite")
        check(ArrayDataset(x, y), contract)
    except DataError as error:
        raise TaskError(f"{what}: {error}") from error
    return x, y


def _array(value: Any) -> npt.NDArray[Any]:
    """An array of a tensor or of whatever NumPy can read."""
    if hasattr(value, "detach"):
        value = value.detach().cpu().numpy()
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise DataError(f"samples differ in shape: {error}") from error
    if array.dtype == object:
        raise DataError("samples are objects, not numbers")
    return array


def _an(name: str) -> str:
    return f"an {name}" if name == "x" else f"a {name}"
