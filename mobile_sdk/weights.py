"""Weights as files: a version's safetensors files, mapped and overlaid."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path

import numpy as np

from . import safetensors
from .durable_files import map_file
from .errors import PayloadError
from .layout import Layout, Vector

__all__ = ["map_weights"]


def map_weights(layout: Layout, files: Iterable[Path], inside: Collection[str] = ()) -> dict[str, Vector]:
    """
    Every parameter of ``layout`` from ``files``, later ones overlaying earlier ones.

    The arrays are read-only and lie in the mapped files: only pages that are touched take memory,
    and the kernel can drop them again.

    Parameters named ``inside`` are constants of the program: they may be missing, and are zeros then, which nobody
    reads.

    Args:
        layout: the parameters that are needed.
        files: safetensors files; later ones overlay earlier ones.
        inside: parameters that are constants of the program.

    Returns:
        Name -> read-only float32 array of the parameter's shape.

    Raises:
        PayloadError: if a file is malformed, or another parameter is missing or of another shape or dtype.

    """
    arrays = {}
    for path in files:
        arrays.update(safetensors.loads(map_file(path))[0])
    weights = {}
    for parameter in layout:
        array = arrays.get(parameter.name)
        if array is None and parameter.name in inside:
            array = np.zeros(parameter.shape, np.float32)
        if array is None:
            raise PayloadError(f"the weights lack the parameter {parameter.name!r}")
        if array.shape != parameter.shape or array.dtype != np.float32:
            raise PayloadError(
                f"the weights hold {parameter.name!r} as {array.dtype} of shape {array.shape}; "
                f"the program takes float32 of shape {parameter.shape}"
            )
        weights[parameter.name] = array
    return weights
