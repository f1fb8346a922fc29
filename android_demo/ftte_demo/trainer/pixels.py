"""
Strokes of a finger as the picture that the model knows.

The digits of the task were made from 32x32 bitmaps, cut to the written digit, by counting the set pixels of each 4x4
block (E. Alpaydin and C. Kaynak, UCI Machine Learning Repository, 1998): 8x8 numbers from 0 to 16. A drawing takes the
same way.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["picture"]

_SIDE = 32
_BLOCK = 4
# Half the width of the pen, in pixels of the bitmap, after the digit was fitted into it.
_PEN = 2.2
# A pixel on the pen's very edge must not depend on where the digit was drawn.
_ROUNDING = 1e-4

Stroke = Sequence[Sequence[float]]


def picture(strokes: Sequence[Stroke]) -> npt.NDArray[np.float32]:
    """
    The drawing as a sample.

    Args:
        strokes: lines of points ``(x, y)``, y upward, in any unit.

    Returns:
        float32, shape (1, 8, 8), in [0, 1]; row 0 is the top.

    Raises:
        ValueError: if there is no point, or one that is not a pair of finite numbers.

    """
    lines = [np.asarray(stroke, np.float64) for stroke in strokes if len(stroke)]
    if not lines or any(line.ndim != 2 or line.shape[1] != 2 or not np.isfinite(line).all() for line in lines):
        raise ValueError("a drawing needs strokes of points (x, y)")
    points = np.concatenate(lines)
    low, high = points.min(axis=0), points.max(axis=0)
    extent = float((high - low).max())
    scale = (_SIDE - 1 - 2 * _PEN) / extent if extent > 0 else 0.0
    middle = (low + high) / 2
    bitmap = np.zeros((_SIDE, _SIDE), bool)
    centres = np.stack(np.meshgrid(np.arange(_SIDE), np.arange(_SIDE)), axis=-1)  # (row, column, xy)
    for line in lines:
        fitted = (line - middle) * scale * (1, -1) + (_SIDE - 1) / 2
        for a, b in zip(fitted, fitted[1:] if len(fitted) > 1 else fitted, strict=False):
            bitmap |= _distance(centres, a, b) <= _PEN + _ROUNDING
    counts = bitmap.reshape(_SIDE // _BLOCK, _BLOCK, _SIDE // _BLOCK, _BLOCK).sum(axis=(1, 3))
    return (counts / _BLOCK**2).astype(np.float32)[None]


def _distance(
    centres: npt.NDArray[np.int64], a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Of each pixel's centre from the segment a-b, in pixels."""
    along = b - a
    length = float(along @ along)
    part = np.clip(((centres - a) @ along) / length, 0.0, 1.0) if length > 0 else np.zeros(centres.shape[:2])
    nearest: npt.NDArray[np.float64] = np.linalg.norm(centres - (a + part[..., None] * along), axis=-1)
    return nearest
