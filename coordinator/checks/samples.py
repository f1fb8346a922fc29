"""The data that a task's own functions give, against the task's contract, before anything is planned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from exporters.errors import TaskError
from exporters.task import Task
from mobile_sdk.data import ArrayDataset
from mobile_sdk.data.fit import fit_dtype
from mobile_sdk.data.usable import check
from mobile_sdk.errors import DataError
from mobile_sdk.fields import join
from mobile_sdk.manifest import InputContract

__all__ = ["fit_samples"]


def fit_samples(task: Task, samples: Any, what: str) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """
    Samples as arrays of the shapes and dtypes that the task takes.

    Args:
        task: the task.
        samples: a pair ``(x, y)`` of arrays or tensors of shapes ``(n, ...)``, either of which may be a dict or tuple.
        what: what they are, for messages, such as ``"the held-out data"``.

    Raises:
        TaskError: if they are none, do not fit the contract, or are not finite; it names the sample.

    """
    if not isinstance(samples, tuple | list) or len(samples) != 2:
        raise TaskError(f"{what} must be a pair (x, y) of arrays, not a {type(samples).__name__}")
    contract = task.contract
    try:
        x, y = (_fit_parts(name, samples[i], contract) for i, name in enumerate("xy"))
        check(ArrayDataset(x, y), contract)
    except DataError as error:
        raise TaskError(f"{what}: {error}") from error
    return x, y


def _fit_parts(array: str, given: Any, contract: InputContract) -> npt.NDArray[Any]:
    """``x`` or ``y``, of one array or several."""
    wanted = contract.parts(array)
    several = isinstance(given, Mapping) or bool(getattr(contract, f"{array}_parts"))
    named: dict[str, Any] = {"": given}
    if several:
        items = given.items() if isinstance(given, Mapping) else enumerate(given)
        named = {str(name): part for name, part in items}
    if sorted(named) != sorted(part.name for part in wanted):
        takes = ", ".join(repr(part.name) for part in wanted if part.name) or "one array"
        raise DataError(f"{array} has {', '.join(map(repr, named))}; the task takes {takes}")
    fitted = {}
    for part in wanted:
        said = f"{array}[{part.name!r}]" if part.name else array
        values = fit_dtype(_array(named[part.name]), part.dtype, said)
        if values.ndim < 1:
            raise DataError("x and y must count samples on their first axis")
        if values.shape[1:] != part.shape:
            raise DataError(
                f"{said} has the shape {values.shape}; the task takes (n, {', '.join(map(str, part.shape))})"
            )
        if np.issubdtype(values.dtype, np.floating):
            bad = ~np.isfinite(values.reshape(len(values), -1)).all(axis=1)
            if bad.any():
                raise DataError(f"sample {int(np.argmax(bad))} has {_an(said)} that is not finite")
        fitted[part.name] = values
    return join(fitted) if several else fitted[""]


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
    return f"an {name}" if name.startswith("x") else f"a {name}"
