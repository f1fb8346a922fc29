"""What a dataset is, and the two that lie in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from ..errors import DataError
from ..fields import join, join_sample
from ..user_code import say_where_raised

__all__ = ["ArrayDataset", "Batch", "Dataset", "SequenceDataset", "batch_of", "read_batch"]

Batch = tuple[npt.NDArray[Any], npt.NDArray[Any]]


@runtime_checkable
class Dataset(Protocol):
    """Samples that can be counted and picked."""

    def __len__(self) -> int: ...

    def batch(self, indices: npt.NDArray[np.int64]) -> Batch:
        """The samples at ``indices``: x of shape ``(len(indices), ...)`` and their y."""
        ...


class ArrayDataset:
    """
    Samples held in two arrays.

    Args:
        x: inputs, shape ``(n, ...)``; or a dict or tuple of such arrays, for a task that takes several.
        y: targets, likewise.

    Raises:
        DataError: if there are no samples, or not as many x as y.

    """

    def __init__(self, x: Any, y: Any) -> None:
        x, y = (batch_of(name, part) for name, part in (("x", x), ("y", y)))
        if len(x) != len(y):
            raise DataError(f"the dataset has {len(x)} inputs but {len(y)} targets")
        if len(x) == 0:
            raise DataError("the dataset has no samples")
        self._x = x
        self._y = y

    def __len__(self) -> int:
        return len(self._x)

    def batch(self, indices: npt.NDArray[np.int64]) -> Batch:
        return self._x[indices], self._y[indices]


class SequenceDataset:
    """
    Any sequence of ``(x, y)``: a list, or an object that makes sample ``i`` when it is asked for.

    Only the samples of one micro-batch are in memory at a time, as far as this class is concerned.

    Args:
        samples: each an array (or a number) x and its y, all of the same shapes and dtypes; a dict or tuple of arrays
            where the task takes several.

    """

    def __init__(self, samples: Sequence[tuple[Any, Any]]) -> None:
        self._samples = samples

    def __len__(self) -> int:
        return len(self._samples)

    def batch(self, indices: npt.NDArray[np.int64]) -> Batch:
        picked = []
        for index in indices:
            sample = self._samples[int(index)]
            if not isinstance(sample, Sequence) or len(sample) != 2:
                raise DataError(
                    f"sample {index} is a {type(sample).__name__}; every sample must be a pair (x, y). If "
                    "these are x and y of all samples, make them arrays"
                )
            picked.append(sample)
        try:
            return np.stack([join_sample(x) for x, _ in picked]), np.stack([join_sample(y) for _, y in picked])
        except ValueError as error:
            raise DataError(f"the samples {indices.tolist()} differ in shape: {error}") from error


def read_batch(dataset: Dataset, indices: npt.NDArray[np.int64]) -> Batch:
    """
    The samples at ``indices`` of a dataset that may be the app's own code.

    Raises:
        DataError: if it fails, or gives something else than as many x and y as were asked for. What its exception says
            is left to the traceback: the coordinator is told this sentence, and is not to learn of samples.

    """
    whose = f"batch() of {type(dataset).__name__}"
    try:
        batch = dataset.batch(indices)
    except (DataError, MemoryError):
        raise
    except Exception as error:
        raise DataError(f"{whose} fails {say_where_raised(error, message=False)}") from error
    if not isinstance(batch, tuple | list) or len(batch) != 2:
        raise DataError(f"{whose} gives a {type(batch).__name__}; it must give a pair (x, y) of arrays")
    x, y = (batch_of(name, part) for name, part in zip("xy", batch, strict=True))
    if not len(x) == len(y) == len(indices):
        raise DataError(f"{whose} gives {len(x)} x and {len(y)} y for {len(indices)} indices: it must give as many")
    return x, y


def batch_of(name: str, values: Any) -> npt.NDArray[Any]:
    """
    An array whose first axis counts samples.

    Raises:
        DataError: if that cannot be made of ``values``.

    """
    try:
        array = join(values)
    except ValueError as error:
        raise DataError(f"the samples of {name} differ in shape: make them arrays of one shape") from error
    if array.ndim == 0:
        raise DataError(
            f"{name} is a single value; its first axis must count samples: give a batch of one, {name}[None]"
        )
    return array
