"""
Handwritten digits, 8x8 pixels, and how they are spread over devices.

The data are the test part of "Optical Recognition of Handwritten Digits" (E. Alpaydin and C. Kaynak, UCI Machine
Learning Repository, 1998), 1797 images of 43 writers, as scikit-learn ships them. The file is read with numpy alone:
a device process imports this module, and scikit-learn or torch would be several times its memory.
"""

from __future__ import annotations

import functools
import gzip
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["held_out", "load", "part", "training"]

DigitSamples = tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]

_HELD_OUT = 360
_LEAST = 20
_LARGEST = 16.0  # grey levels of the source


def _file() -> Path:
    spec = importlib.util.find_spec("sklearn")
    if spec is None or spec.origin is None:
        raise FileNotFoundError(
            "the digits come with scikit-learn, which is not installed; run pip install scikit-learn"
        )
    return Path(spec.origin).parent / "datasets" / "data" / "digits.csv.gz"


@functools.cache
def load() -> tuple[DigitSamples, DigitSamples]:
    """
    Training and held-out samples, in a fixed random order.

    Returns:
        ``(train_x, train_y), (test_x, test_y)``: x float32 in [0, 1], shape (n, 1, 8, 8); y int64, shape (n,).
        1437 and 360 samples. The arrays are shared; copy before changing them.

    Raises:
        FileNotFoundError: if scikit-learn is not installed.

    """
    with gzip.open(_file(), "rt") as lines:
        table: npt.NDArray[Any] = np.loadtxt(lines, delimiter=",", dtype=np.float32)
    table = table[np.random.default_rng(0).permutation(len(table))]
    x = (table[:, :64] / _LARGEST).reshape(-1, 1, 8, 8).astype(np.float32)
    y = table[:, 64].astype(np.int64)
    return (x[_HELD_OUT:], y[_HELD_OUT:]), (x[:_HELD_OUT], y[:_HELD_OUT])


def held_out() -> DigitSamples:
    """The samples of central evaluation, of no device's part."""
    return load()[1]


def training() -> DigitSamples:
    """The samples that devices have, all together."""
    return load()[0]


def part(index: int, of: int = 8, alpha: float = 0.3, seed: int = 0) -> DigitSamples:
    """
    Device ``index``'s part of the training samples.

    Every class is shared out in proportions drawn from Dirichlet(alpha) (Hsu, Qi and Brown 2019): the smaller
    ``alpha``, the more the devices differ. Parts are disjoint, cover all samples, and have at least 20.

    Args:
        index: 0 to ``of - 1``.
        of: number of devices, at most 71.
        alpha: concentration.
        seed: fixes the draw.

    Raises:
        ValueError: if an argument is out of range.

    """
    x, y = load()[0]
    if not 1 <= of <= len(y) // _LEAST or not 0 <= index < of:
        raise ValueError(f"there is no part {index} of {of}; parts are 0 to of - 1, of at most {len(y) // _LEAST}")
    if not alpha > 0:
        raise ValueError(f"alpha is {alpha}; it must be positive")
    indices = np.sort(_shares(y, of, alpha, seed)[index])
    return x[indices], y[indices]


def _shares(y: npt.NDArray[np.int64], of: int, alpha: float, seed: int) -> list[npt.NDArray[np.int64]]:
    random = np.random.default_rng(seed)
    shares: list[list[int]] = [[] for _ in range(of)]
    for label in np.unique(y):
        members = random.permutation(np.flatnonzero(y == label))
        cuts = np.cumsum(random.dirichlet(np.full(of, alpha)))[:-1]
        for share, chunk in zip(shares, np.split(members, np.round(cuts * len(members)).astype(int)), strict=True):
            share.extend(chunk.tolist())
    # A device with too little takes from whoever has most at the time.
    for share in shares:
        while len(share) < _LEAST:
            richest = max(shares, key=len)
            share.append(richest.pop())
    return [np.array(share, np.int64) for share in shares]
