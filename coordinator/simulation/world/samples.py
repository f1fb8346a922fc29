"""The training samples of a scenario, as files that every worker maps."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mobile_sdk.references import load_attribute
from mobile_sdk.user_code import say_where_raised

from ...errors import ConfigError

__all__ = ["SimulationSamples", "load_simulation_samples"]


@dataclasses.dataclass(frozen=True)
class SimulationSamples:
    """``x`` (n, ...) and ``y`` (n, ...), mapped from the files; ``writers`` (n,) where the source names them."""

    x: npt.NDArray[Any]
    y: npt.NDArray[Any]
    writers: npt.NDArray[np.int64] | None
    x_path: Path
    y_path: Path


def load_simulation_samples(source: str, folder: Path) -> SimulationSamples:
    """
    Call ``package.module:function`` and keep what it gives in ``folder``.

    Raises:
        ConfigError: if there is no such function, or it gives anything but arrays of equal length.

    """
    try:
        function = load_attribute(source)
    except ValueError as error:
        raise ConfigError(f"data.source: {error}") from error
    try:
        result = function()
    except (Exception, SystemExit) as error:
        raise ConfigError(f"data.source {source!r} fails {say_where_raised(error)}") from error
    if not isinstance(result, tuple) or len(result) not in (2, 3) or len({len(array) for array in result}) != 1:
        raise ConfigError(f"data.source {source!r} must give (x, y) or (x, y, writer), arrays of equal length")
    x_path, y_path = folder / "x.npy", folder / "y.npy"
    np.save(x_path, result[0])
    np.save(y_path, result[1])
    writers = np.asarray(result[2], np.int64) if len(result) == 3 else None
    return SimulationSamples(np.load(x_path, mmap_mode="r"), np.load(y_path, mmap_mode="r"), writers, x_path, y_path)
