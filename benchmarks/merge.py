"""
What an exact merge takes, beside one in float32 that does the same: time, memory, and hashes over kinds of processor.

    python -m benchmarks.merge

Buffers of 32 updates of 60,000 and of 2,500,000 parameters. The float merge is the one that exact sums replaced:
``saxpy`` over blocks, sixteen updates at a time, in float64 between them.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.linalg.blas import saxpy

from coordinator.merge.sums import BLOCK, exact_values, to_steps
from mobile_sdk.layout import Vector

RESULTS = Path(__file__).parent / "results" / "merge.json"
UPDATES = 32
SIZES = (60_000, 2_500_000)
ROUNDS = 15
GROUP = 16


def float_sum(arrays: Sequence[Vector], weights: Sequence[float]) -> npt.NDArray[np.float64]:
    """The sum as it was before it was exact: its last bits depend on processor and order."""
    total = np.empty(len(arrays[0]), np.float64)
    partial = np.empty(min(BLOCK, len(total)), np.float32)
    for start in range(0, len(total), BLOCK):
        block = total[start : start + BLOCK]
        group = partial[: len(block)]
        for first in range(0, len(arrays), GROUP):
            np.multiply(arrays[first][start : start + BLOCK], np.float32(weights[first]), out=group)
            for k in range(first + 1, min(first + GROUP, len(arrays))):
                saxpy(arrays[k][start : start + BLOCK], group, len(group), weights[k])
            if first == 0:
                block[...] = group
            else:
                block += group
    return total


def _measure(function: Callable[[], Any]) -> dict[str, float]:
    """Median processor time in seconds, and the most memory that was allocated meanwhile, in bytes."""
    function()
    seconds = []
    for _ in range(ROUNDS):
        began = time.process_time()
        function()
        seconds.append(time.process_time() - began)
    tracemalloc.start()
    function()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return {"seconds": statistics.median(seconds), "fastest_seconds": min(seconds), "bytes": peak}


def main() -> None:
    """Measure, print, and write ``results/merge.json``."""
    report: dict[str, Any] = {
        "machine": {
            "processors": os.cpu_count(),
            "architecture": platform.machine(),
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        "updates": UPDATES,
        "sizes": {},
    }
    for size in SIZES:
        rng = np.random.default_rng(0)
        arrays = [to_steps(rng.normal(0, 0.01, size).astype(np.float32)) for _ in range(UPDATES)]
        weights = [int(weight) for weight in rng.integers(1_000, 100_000, UPDATES)]
        largest = [float(np.abs(array).max()) for array in arrays]
        floats = [weight / 1024 for weight in weights]
        rows = {
            "float": _measure(lambda arrays=arrays, floats=floats: float_sum(arrays, floats)),
            "exact": _measure(lambda arrays=arrays, weights=weights, m=largest: exact_values(arrays, weights, m)),
        }
        ratio = rows["exact"]["fastest_seconds"] / rows["float"]["fastest_seconds"]
        report["sizes"][str(size)] = rows | {"ratio": ratio}
        print(
            f"{UPDATES} x {size:,}: float {1e3 * rows['float']['seconds']:.2f} ms, "
            f"{rows['float']['bytes'] / 1e6:.1f} MB; exact {1e3 * rows['exact']['seconds']:.2f} ms, "
            f"{rows['exact']['bytes'] / 1e6:.1f} MB; {ratio:.2f} times as long"
        )
    RESULTS.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
