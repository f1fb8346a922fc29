"""A folder of arrays, mapped from disk: only the samples of a batch are read."""

from __future__ import annotations

import bisect
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import DataError
from ..fields import named_in
from .base import Batch

__all__ = ["FolderDataset"]


class FolderDataset:
    """
    The samples of all files in a folder, in the order of their names.

    A file ``NAME.npz`` holds ``x`` and ``y``, each with a first axis that counts samples; where a task takes several
    arrays, ``x.NAME`` for each of them (``x.ids``, ``x.mask``). Two files ``NAME.x.npy``
    and ``NAME.y.npy`` (or ``x.npy`` and ``y.npy``) holds the same; these are mapped, so a folder may be larger
    than memory. Of ``.npz`` files, which cannot be mapped, the last one used is kept in memory.

    Args:
        folder: where they are. Files that come later are not seen; make a new dataset for them.

    Raises:
        DataError: if there is no sample, a file cannot be read, or x and y do not go together.

    """

    def __init__(self, folder: str | Path) -> None:
        folder = Path(folder)
        if not folder.is_dir():
            raise DataError(f"there is no folder {folder}: name one with NAME.npz files, which hold x and y")
        self._loaded: tuple[int, Batch] | None = None
        self._parts: list[Batch | Path] = []
        self._ends: list[int] = []
        names = [p for p in sorted(folder.glob("*")) if p.suffix == ".npz" or p.name.endswith("x.npy")]
        for path in names:
            part, count = self._open(path)
            if count:
                self._parts.append(part)
                self._ends.append(count + (self._ends[-1] if self._ends else 0))
        if not self._parts:
            raise DataError(
                f"the folder {folder} holds no samples: NAME.npz with x and y, or NAME.x.npy and NAME.y.npy"
            )

    def __len__(self) -> int:
        return self._ends[-1]

    def batch(self, indices: npt.NDArray[np.int64]) -> Batch:
        pairs = [self._sample(int(index)) for index in indices]
        try:
            return np.stack([x for x, _ in pairs]), np.stack([y for _, y in pairs])
        except ValueError as error:
            raise DataError(f"the samples {indices.tolist()} differ in shape: {error}") from error

    def _open(self, path: Path) -> tuple[Batch | Path, int]:
        if path.suffix == ".npz":
            return path, len(self._read(path)[0])
        other = path.with_name(path.name.removesuffix("x.npy") + "y.npy")
        try:
            x = np.load(path, mmap_mode="r", allow_pickle=False)
            y = np.load(other, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise DataError(f"cannot read {path} and {other}: {error}") from error
        _check_lengths(path, x, y)
        return (x, y), len(x)

    def _sample(self, index: int) -> tuple[Any, Any]:
        number = bisect.bisect_right(self._ends, index)
        offset = index - (self._ends[number - 1] if number else 0)
        part = self._parts[number]
        if isinstance(part, Path):
            if self._loaded is None or self._loaded[0] != number:
                self._loaded = number, self._read(part)
            part = self._loaded[1]
        return part[0][offset], part[1][offset]

    @staticmethod
    def _read(path: Path) -> Batch:
        try:
            with np.load(path, allow_pickle=False) as arrays:
                x, y = named_in(arrays, "x"), named_in(arrays, "y")
        except (OSError, ValueError, KeyError) as error:
            raise DataError(f"cannot read x and y from {path}: {error}") from error
        _check_lengths(path, x, y)
        return x, y


def _check_lengths(path: Path, x: npt.NDArray[Any], y: npt.NDArray[Any]) -> None:
    if x.ndim == 0 or y.ndim == 0 or len(x) != len(y):
        raise DataError(f"{path} has x of shape {x.shape} but y of shape {y.shape}; the first axis must count samples")
