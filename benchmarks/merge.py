"""
What an exact merge takes, beside one in float32 that does the same: time, memory, and hashes over kinds of processor.

    python -m benchmarks.merge

Buffers of 32 updates of 60,000 and of 2,500,000 parameters, as floats and as integers on public steps of channels of
250. The float merge is the one that exact sums replaced: ``saxpy`` over blocks, sixteen updates at a time, in float64
between them. Times are processor time; methods take turns, so what disturbs one disturbs the others. Memory is that of
the updates in the buffer, and what the merge allocates beside it.
"""

from __future__ import annotations

import functools
import json
import os
import platform
import statistics
import time
import tracemalloc
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.linalg.blas import saxpy

from coordinator.merge.contribution import Contribution
from coordinator.merge.defence import Defence
from coordinator.merge.regions import WeightRegion
from coordinator.merge.rules import Direction, combine
from coordinator.merge.sums import BLOCK, Elements, exact_values, largest_magnitude, to_steps
from mobile_sdk.layout import Vector
from mobile_sdk.payload import SteppedVector, Steps
from mobile_sdk.payload.steps import BITS

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


def _measure(methods: Mapping[str, Callable[[], Any]]) -> dict[str, dict[str, float]]:
    """Processor time in seconds, and the most memory that was allocated meanwhile, in bytes."""
    seconds: dict[str, list[float]] = {name: [] for name in methods}
    for number in range(ROUNDS + 1):
        for name, method in methods.items():
            began = time.process_time()
            method()
            if number:  # the first one fills caches
                seconds[name].append(time.process_time() - began)
    rows = {}
    for name, method in methods.items():
        tracemalloc.start()
        method()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        times = seconds[name]
        rows[name] = {"seconds": statistics.median(times), "fastest_seconds": min(times), "bytes": float(peak)}
    return rows


def _stepped(size: int, dtype: str, rng: np.random.Generator) -> list[SteppedVector]:
    """Updates of integers, all on the same steps."""
    steps = Steps([(size // 250, 250)], rng.integers(-16, -12, size // 250).astype(np.int8))
    most = 2 ** BITS[dtype] - 1
    kind: Any = np.int16 if dtype == "int16" else np.int8
    return [SteppedVector(rng.integers(-most, most + 1, size).astype(kind), steps, BITS[dtype]) for _ in range(UPDATES)]


def _contributions(arrays: Sequence[Elements]) -> list[Contribution]:
    """Updates of as many devices."""
    region = WeightRegion(np.arange(len(arrays[0])))
    return [
        Contribution(f"a{k:02}", region, array, 30.0, device=f"d{k:02}", largest=largest_magnitude(array))
        for k, array in enumerate(arrays)
    ]


def _defended(updates: Sequence[Contribution]) -> Direction:
    """The whole merge, with the defence in front of it."""
    judged = Defence().judge(updates, len(updates)).contributions
    return combine(len(updates[0].region), judged, [1.0] * len(judged))


def _held(arrays: Sequence[Elements]) -> int:
    """Bytes of updates that wait in the buffer."""
    return sum(array.integers.nbytes if isinstance(array, SteppedVector) else array.nbytes for array in arrays)


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
        buffers: dict[str, Sequence[Elements]] = {
            "exact": [to_steps(rng.normal(0, 0.01, size).astype(np.float32)) for _ in range(UPDATES)],
            **{dtype: _stepped(size, dtype, rng) for dtype in ("int16", "int8", "int4")},
        }
        floats: Sequence[Any] = buffers["exact"]
        weights = [int(weight) for weight in rng.integers(1_000, 100_000, UPDATES)]
        bounds = {name: [largest_magnitude(array) for array in arrays] for name, arrays in buffers.items()}
        methods: dict[str, Callable[[], Any]] = {"float": lambda: float_sum(floats, [w / 1024 for w in weights])}
        for name, arrays in buffers.items():
            if name in ("exact", "int8"):
                methods[f"{name}, defended"] = functools.partial(_defended, _contributions(arrays))
            methods[name] = lambda arrays=arrays, bound=bounds[name]: exact_values(arrays, weights, bound)
        rows = _measure(methods)
        report["sizes"][str(size)] = rows
        for name, row in rows.items():
            row["held_bytes"] = _held(buffers.get(name.split(",")[0], floats))
            row["ratio"] = row["seconds"] / rows["float"]["seconds"]
            print(
                f"{UPDATES} x {size:,} {name:15}: {1e3 * row['seconds']:6.2f} ms ({1e3 * row['fastest_seconds']:.2f}), "
                f"{row['ratio']:.2f} times; {row['held_bytes'] / 1e6:.1f} MB in the buffer, "
                f"{row['bytes'] / 1e6:.1f} MB beside it"
            )
    RESULTS.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
