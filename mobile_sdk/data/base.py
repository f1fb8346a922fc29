"""What a dataset is, and the two that lie in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from ..errors import DataError
from ..fields import join, join_sample

__all__ = ["ArrayDataset", "Batch", "Dataset", "SequenceDataset"]

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
        x, y = join(x), join(y)
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
                raise DataError(f"sample {index} is a {type(sample).__name__}; every sample must be a pair (x, y)")
            picked.append(sample)
        try:
            return np.stack([join_sample(x) for x, _ in picked]), np.stack([join_sample(y) for _, y in picked])
        except ValueError as error:
            raise DataError(f"the samples {indices.tolist()} differ in shape: {error}") from error
