"""Samples against the task's input contract, before anything is trained on them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import DataError
from ..fields import parts
from ..manifest import Bound, InputContract

__all__ = ["check_batch"]

Array = npt.NDArray[Any]


def check_batch(x: Array, y: Array, start: int, contract: InputContract) -> None:
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
    for name, batch in (("x", x), ("y", y)):
        arrays = _checked_parts(name, batch, start, contract)
        for part in contract.parts(name):
            _check_numbers(_said(name, part.name), arrays[part.name], start, contract)
        for bound in contract.bounds:
            if bound.array == name:
                _check_bound(bound, arrays[bound.part], start, contract)
    if contract.labels and contract.y_shape == () and not any(b.array == "y" for b in contract.bounds):
        _check_bound(Bound("y", "", 0, len(contract.labels) - 1), y, start, contract)


def _said(name: str, part: str) -> str:
    return f"{name}[{part!r}]" if part else name


def _checked_parts(name: str, batch: Array, start: int, contract: InputContract) -> dict[str, Array]:
    """The arrays of ``batch`` by their names, each of the shape and dtype that the task takes."""
    wanted, arrays = contract.parts(name), parts(batch)
    if sorted(arrays) != sorted(part.name for part in wanted):
        has = ", ".join(repr(key) for key in arrays if key) or "one array"
        takes = ", ".join(repr(part.name) for part in wanted if part.name) or "one array"
        raise DataError(f"sample {start} has {has} as {name}; the task takes {takes}")
    for part in wanted:
        array = arrays[part.name]
        if array.shape[1:] != part.shape or array.dtype != np.dtype(part.dtype):
            raise DataError(
                f"sample {start} has {_said(name, part.name)} of {array.dtype} and shape {array.shape[1:]}; "
                f"the task takes {part.dtype} and {part.shape}"
            )
    return arrays


def _check_numbers(name: str, array: Array, start: int, contract: InputContract) -> None:
    """That every number is finite, and x within its range."""
    flat = array.reshape(len(array), -1)
    if name == "x" and contract.range is not None:
        low, high = contract.range
        bad = ~((flat >= low) & (flat <= high)).all(axis=1)
        hint = f" ({contract.normalisation})" if contract.normalisation else ""
        wanted = f"within [{low:g}, {high:g}]{hint}"
    else:
        bad = ~np.isfinite(flat).all(axis=1)
        wanted = "finite"
    if bad.any():
        article = "an" if name.startswith("x") else "a"
        raise DataError(f"sample {start + int(np.argmax(bad))} has {article} {name} that is not {wanted}")


def _check_bound(bound: Bound, array: Array, start: int, contract: InputContract) -> None:
    """That the model, or its loss, has a place for every whole number."""
    looked_up = array if bound.column is None else array[..., bound.column]
    flat = looked_up.reshape(len(looked_up), -1)
    bad = (flat < bound.low) | (flat > bound.high)
    if bound.ignored is not None:
        bad &= flat != bound.ignored
    if not bad.any():
        return
    index = int(np.argmax(bad.any(axis=1)))
    value = flat[index][bad[index]][0]
    said = _said(bound.array, bound.part)
    ignored = "" if bound.ignored is None else f", or {bound.ignored}, which is ignored"
    if bound.array == "y":
        raise DataError(
            f"sample {start + index} has the label {value:g}{f' in {said}' if bound.part else ''}; "
            f"labels are {bound.low} to {bound.high}{ignored}"
        )
    raise DataError(
        f"sample {start + index} has the number {value:g} in {said}; the model's table has rows "
        f"{bound.low} to {bound.high}{ignored}"
    )
