"""The samples of a dataset that a task can be trained on: in its dtypes, and without those that break its contract."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from ..errors import DataError
from ..manifest import SEVERAL, InputContract
from .base import Batch, Dataset, read_batch
from .check import check_batch
from .fit import fit_parts

__all__ = ["Usable", "check", "usable_samples"]

CHUNK = 256


@dataclasses.dataclass(frozen=True)
class Usable:
    """
    Samples that keep a task's contract, as a dataset.

    ``skipped`` maps the indices of the others, in the dataset that was given, to what is wrong with them.
    """

    source: Dataset
    contract: InputContract
    indices: npt.NDArray[np.int64]
    skipped: dict[int, str]

    def __len__(self) -> int:
        return len(self.indices)

    def batch(self, indices: npt.NDArray[np.int64]) -> Batch:
        """The samples at ``indices``: x of shape ``(len(indices), ...)`` and their y, in the task's dtypes."""
        return _fitted(self.source, self.indices[indices], self.contract)


def usable_samples(dataset: Dataset, contract: InputContract) -> Usable:
    """
    The samples of ``dataset`` that can be trained on.

    Args:
        dataset: read once, some hundred samples at a time.
        contract: what the task takes.

    Raises:
        DataError: if there is none: what is wrong with the first.

    """
    skipped = dict(_problems(dataset, contract))
    good = np.array([index for index in range(len(dataset)) if index not in skipped], np.int64)
    if not len(good):
        raise DataError(skipped[0] if skipped else "the dataset has no samples")
    return Usable(dataset, contract, good, skipped)


def check(dataset: Dataset, contract: InputContract) -> None:
    """
    Compare every sample with the task's input contract, in the task's dtypes.

    Raises:
        DataError: naming the first sample that breaks it, how, and what the task takes.

    """
    for _, words in _problems(dataset, contract):
        raise DataError(words)


def _problems(dataset: Dataset, contract: InputContract) -> Iterator[tuple[int, str]]:
    """The samples that break the contract, and how; some hundred at a time are looked at together."""
    for start in range(0, len(dataset), CHUNK):
        indices = np.arange(start, min(start + CHUNK, len(dataset)))
        if _problem(dataset, indices, contract) is not None:
            for index in indices:
                words = _problem(dataset, np.array([index]), contract)
                if words is not None:
                    yield int(index), words


def _problem(dataset: Dataset, indices: npt.NDArray[np.int64], contract: InputContract) -> str | None:
    try:
        check_batch(*_fitted(dataset, indices, contract), int(indices[0]), contract)
    except DataError as error:
        return str(error)
    return None


def _fitted(dataset: Dataset, indices: npt.NDArray[np.int64], contract: InputContract) -> Batch:
    x, y = read_batch(dataset, indices)
    where = f"sample {indices[0]} has" if len(indices) == 1 else "the samples have"
    for name, array, shape, dtype in (
        ("x", x, contract.x_shape, contract.x_dtype),
        ("y", y, contract.y_shape, contract.y_dtype),
    ):
        if array.shape[1:] != shape and dtype != SEVERAL:
            raise DataError(
                f"{where} {name} of {array.dtype} and shape {array.shape[1:]}; the task takes {dtype} and {shape}"
            )
    try:
        return fit_parts(x, "x", contract), fit_parts(y, "y", contract)
    except DataError as error:
        names = contract.labels
        hint = f"; a label is its number, 0 for {names[0]} to {len(names) - 1} for {names[-1]}" if names else ""
        raise DataError(f"{where} the wrong kind of numbers: {error}{hint if y.dtype.kind in 'SU' else ''}") from error
