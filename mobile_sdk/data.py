"""A device's own samples. They never leave the device."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from .errors import DataError
from .manifest import InputContract

__all__ = ["ArrayDataset", "Dataset", "check", "load_dataset"]


class Dataset(Protocol):
    """Samples that can be counted and picked."""

    def __len__(self) -> int: ...

    def batch(self, indices: npt.NDArray[np.int64]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """The samples at ``indices``: x of shape ``(len(indices), ...)`` and their y."""
        ...


class ArrayDataset:
    """
    Samples held in two arrays.

    Args:
        x: inputs, shape ``(n, ...)``.
        y: targets, shape ``(n, ...)``.

    Raises:
        DataError: if there are no samples, or not as many x as y.

    """

    def __init__(self, x: npt.NDArray[Any], y: npt.NDArray[Any]) -> None:
        if len(x) != len(y):
            raise DataError(f"the dataset has {len(x)} inputs but {len(y)} targets")
        if len(x) == 0:
            raise DataError("the dataset has no samples")
        self._x = x
        self._y = y

    def __len__(self) -> int:
        return len(self._x)

    def batch(self, indices: npt.NDArray[np.int64]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        return self._x[indices], self._y[indices]


def check(dataset: Dataset, contract: InputContract) -> None:
    """
    Compare every sample with the task's input contract.

    Raises:
        DataError: naming the first sample that breaks it, and how.

    """
    for start in range(0, len(dataset), 256):
        indices = np.arange(start, min(start + 256, len(dataset)))
        x, y = dataset.batch(indices)
        _check_array("x", x, contract.x_shape, contract.x_dtype)
        _check_array("y", y, contract.y_shape, contract.y_dtype)
        flat = x.reshape(len(x), -1)
        if contract.range is not None:
            low, high = contract.range
            bad = ~((flat >= low) & (flat <= high)).all(axis=1)
            wanted = f"within [{low:g}, {high:g}]"
        else:
            bad = ~np.isfinite(flat).all(axis=1)
            wanted = "finite"
        if bad.any():
            raise DataError(f"sample {start + int(np.argmax(bad))} has an x that is not {wanted}")
        if contract.labels and contract.y_shape == ():
            bad = ~((y >= 0) & (y < len(contract.labels)))
            if bad.any():
                index = int(np.argmax(bad))
                raise DataError(
                    f"sample {start + index} has the label {y[index]}; labels are 0 to {len(contract.labels) - 1}"
                )


def _check_array(name: str, array: npt.NDArray[Any], shape: tuple[int, ...], dtype: str) -> None:
    if array.shape[1:] != shape or array.dtype != np.dtype(dtype):
        raise DataError(
            f"samples have {name} of {array.dtype} and shape {array.shape[1:]}; the task takes {dtype} and {shape}"
        )


_CALL = re.compile(r"(?P<module>[\w.]+):(?P<name>\w+)(?P<arguments>\(.*\))?", re.DOTALL)


def load_dataset(source: str) -> Dataset:
    """
    The dataset that a command line names.

    Args:
        source: ``package.module:callable``, called without arguments or with literal ones
            (``package.module:part(3, of=8)``), returning a dataset or a pair of arrays; or a path to
            an ``.npz`` file that holds ``x`` and ``y``.

    Raises:
        DataError: if there is no such thing or it gives something else.

    """
    if source.endswith(".npz"):
        return _load_npz(Path(source))
    match = _CALL.fullmatch(source)
    if match is None:
        raise DataError(f"{source!r} is neither package.module:callable nor an .npz file")
    try:
        function = getattr(importlib.import_module(match["module"]), match["name"])
    except (ImportError, AttributeError) as error:
        raise DataError(f"cannot load the dataset {source!r}: {error}") from error
    args, kwargs = _literals(match["arguments"] or "()", source)
    result = function(*args, **kwargs)
    if isinstance(result, tuple) and len(result) == 2:
        return ArrayDataset(*result)
    if hasattr(result, "batch") and hasattr(result, "__len__"):
        dataset: Dataset = result
        return dataset
    raise DataError(f"{source!r} gave {type(result).__name__}; it must give (x, y) arrays or a dataset")


def _load_npz(path: Path) -> Dataset:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return ArrayDataset(arrays["x"], arrays["y"])
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"cannot read x and y from {path}: {error}") from error


def _literals(text: str, source: str) -> tuple[list[Any], dict[str, Any]]:
    try:
        call = ast.parse(f"f{text}", mode="eval").body
        if not isinstance(call, ast.Call):
            raise ValueError("not a call")
        args = [ast.literal_eval(argument) for argument in call.args]
        kwargs = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords if keyword.arg}
    except (SyntaxError, ValueError) as error:
        raise DataError(f"{source!r}: arguments must be literals such as (3, of=8)") from error
    return args, kwargs
