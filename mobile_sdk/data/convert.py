"""Whatever an app has its samples in, as a dataset."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError
from ..fields import is_several
from .base import ArrayDataset, Dataset, SequenceDataset
from .folder import FolderDataset

__all__ = ["as_dataset"]


def as_dataset(source: Any) -> Dataset:
    """
    Whatever an app has its samples in, as a dataset.

    Args:
        source: a :class:`Dataset`; a pair ``(x, y)`` of arrays, or a dict with ``x`` and ``y``, either of which may be
            a dict or tuple of arrays; a sequence of pairs ``(x, y)``; or the path of a folder of ``.npz`` or ``.npy``
            files (see
            :class:`~mobile_sdk.data.folder.FolderDataset`).

    Raises:
        DataError: if it is none of these.

    """
    if isinstance(source, Dataset):
        return source
    if isinstance(source, str | Path):
        return FolderDataset(source)
    if isinstance(source, Mapping):
        if set(source) != {"x", "y"}:
            raise DataError(f"a dict of arrays must have the keys 'x' and 'y', not {sorted(map(str, source))}")
        return ArrayDataset(source["x"], source["y"])
    if isinstance(source, tuple) and len(source) == 2 and all(_is_array(part) or is_several(part) for part in source):
        return ArrayDataset(*source)
    if hasattr(source, "__len__") and hasattr(source, "__getitem__"):
        return SequenceDataset(source)
    raise DataError(
        f"{type(source).__name__} is no dataset: give arrays (x, y), a sequence of pairs (x, y), a folder, "
        "or an object with __len__ and batch"
    )


def _is_array(part: Any) -> bool:
    """Whether it is an array, or a tensor or table that gives one."""
    return isinstance(part, np.ndarray) or (hasattr(part, "__array__") and hasattr(part, "shape"))
