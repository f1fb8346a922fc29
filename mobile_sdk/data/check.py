"""Samples against the task's input contract, before anything is trained on them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import DataError
from ..manifest import InputContract
from .base import Dataset

__all__ = ["check", "check_batch"]

CHUNK = 256


def check(dataset: Dataset, contract: InputContract) -> None:
    """
    Compare every sample with the task's input contract.

    Raises:
        DataError: naming the first sample that breaks it, how, and what the task takes.

    """
    for start in range(0, len(dataset), CHUNK):
        indices = np.arange(start, min(start + CHUNK, len(dataset)))
        try:
            x, y = dataset.batch(indices)
        except DataError:
            # Samples that do not even go together: one at a time tells which.
            for index in indices:
                check_batch(*dataset.batch(np.array([index])), int(index), contract)
            raise
        check_batch(x, y, start, contract)


def check_batch(x: npt.NDArray[Any], y: npt.NDArray[Any], start: int, contract: InputContract) -> None:
    """
    Compare samples with a contract.

    Args:
        x: shape ``(n, *contract.x_shape)``, in the contract's dtype.
        y: shape ``(n, *contract.y_shape)``, in the contract's dtype.
        start: number of the first of them, for messages.
        contract: what the task takes.

    Raises:
        DataError: naming the first sample that breaks it.

    """
    _check_array("x", x, contract.x_shape, contract.x_dtype, start)
    _check_array("y", y, contract.y_shape, contract.y_dtype, start)
    flat = x.reshape(len(x), -1)
    if contract.range is not None:
        low, high = contract.range
        bad = ~((flat >= low) & (flat <= high)).all(axis=1)
        hint = f" ({contract.normalisation})" if contract.normalisation else ""
        wanted = f"within [{low:g}, {high:g}]{hint}"
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


def _check_array(name: str, array: npt.NDArray[Any], shape: tuple[int, ...], dtype: str, start: int) -> None:
    if array.shape[1:] != shape or array.dtype != np.dtype(dtype):
        raise DataError(
            f"sample {start} has {name} of {array.dtype} and shape {array.shape[1:]}; "
            f"the task takes {dtype} and {shape}"
        )
