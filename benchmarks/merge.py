"""
What an exact merge takes, bare and with the defence, beside merges in float32 that do the same: time and memory.

    python -m benchmarks.merge

Buffers of 32 updates of 60,000 and of 2,500,000 parameters, as floats and as integers on public steps of channels of
250, each of another device. The float sum is the one that exact sums replaced: ``saxpy`` over blocks, sixteen updates
at a time, in float64 between them. The defended float merge is that sum with the same defence in plain float32 BLAS:
norms and dot products by ``sdot``, the sum of directions by ``saxpy``.

*Defended* is :class:`~coordinator.merge.defence.Defence` and the sum, as in a run: each update's length was taken when
it arrived. *Lengths* is what that took, for all 32. The float peer has no arrivals, so its lengths are in.

*Passes* is what a defended merge of such updates cannot do without: blocks of all updates are read as float64 and
multiplied three times, for the sum, for the sum of directions, and with that one. Nothing is computed with the results.

Times are processor time; methods take turns, so what disturbs one disturbs the others. Memory is that of the updates
in the buffer, and what the merge allocates beside it.
"""

from __future__ import annotations

import functools
import json
import math
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
from coordinator.merge.defence import AGAINST, CAP, CLIP, PULL, Defence
from coordinator.merge.merger import Merger
from coordinator.merge.regions import WeightRegion
from coordinator.merge.rules import Direction, combine
from coordinator.merge.squares import norm
from coordinator.merge.sums import BLOCK, BLOCK_OF_ALL, Elements, exact_values, largest_magnitude, read_rows, to_steps
from mobile_sdk.layout import Vector
from mobile_sdk.payload import SteppedVector, Steps
from mobile_sdk.payload.steps import BITS

RESULTS = Path(__file__).parent / "results" / "merge.json"
UPDATES = 32
SIZES = (60_000, 2_500_000)
ROUNDS = 9
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


def float_merge(arrays: Sequence[Vector], examples: Sequence[float]) -> npt.NDArray[np.float64]:
    """The defended merge of updates of as many devices, nothing of it exact: bounds of length, samples and pull."""
    lengths = np.array([math.sqrt(float(np.dot(array, array))) for array in arrays])
    scales = np.minimum(1.0, CLIP * np.median(lengths) / lengths)
    total = float_sum(arrays, (1 / lengths).tolist())
    everything = total.astype(np.float32)
    along = np.array([float(np.dot(array, everything)) for array in arrays]) / lengths
    others = np.sqrt(np.dot(total, total) - 2 * along + 1)
    counted = np.minimum(examples, CAP * np.median(examples))
    pulls = counted * lengths * scales
    limits = np.where((along - 1) / others < AGAINST, 1.0, PULL) * np.median(pulls)
    counted *= np.minimum(1.0, limits / pulls)
    return float_sum(arrays, (counted * scales).tolist()) / counted.sum()


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
    """Updates of as many devices, as they wait in the buffer."""
    region = WeightRegion(np.arange(len(arrays[0])))
    return [
        Contribution(
            f"a{k:02}", region, array, 30.0, device=f"d{k:02}", largest=largest_magnitude(array), length=norm(array)
        )
        for k, array in enumerate(arrays)
    ]


def _defended(updates: Sequence[Contribution]) -> Direction:
    """The whole merge, with the defence in front of it."""
    judgement = Defence().judge(updates, len(updates), Merger().weigh)
    weights = [1.0] * len(judgement.contributions)
    return combine(len(updates[0].region), judgement.contributions, weights, sums=judgement.sums)


def _passes(arrays: Sequence[npt.NDArray[Any]]) -> None:
    """What any defended merge of them does at least: one reading, and three products with float64 of it."""
    size, block = len(arrays[0]), min(BLOCK_OF_ALL // len(arrays), len(arrays[0]))
    room, row, column = np.empty(len(arrays) * block), np.ones(len(arrays)), np.ones(block)
    sums = np.empty((2, block))
    for start in range(0, size, block):
        rows = read_rows(arrays, slice(start, min(start + block, size)), room)
        for part in sums[:, : rows.shape[1]]:
            np.matmul(row, rows, out=part)
        rows @ column[: rows.shape[1]]


def _lengths(arrays: Sequence[Elements]) -> list[float]:
    """What is measured of updates when they arrive."""
    return [norm(array) for array in arrays]


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
        methods["float, defended"] = lambda: float_merge(floats, [30.0] * UPDATES)
        for name, arrays in buffers.items():
            methods[f"{name}, defended"] = functools.partial(_defended, _contributions(arrays))
            methods[f"{name}, lengths"] = functools.partial(_lengths, arrays)
            raw = [array.integers if isinstance(array, SteppedVector) else array for array in arrays]
            methods[f"{name}, passes"] = functools.partial(_passes, raw)
            methods[name] = functools.partial(exact_values, arrays, weights, bounds[name])
        rows = _measure(methods)
        report["sizes"][str(size)] = rows
        for name, row in rows.items():
            row["held_bytes"] = _held(buffers.get(name.split(",")[0], floats))
            row["ratio"] = row["seconds"] / rows["float"]["seconds"]
            row["defended_ratio"] = row["seconds"] / rows["float, defended"]["seconds"]
            print(
                f"{UPDATES} x {size:,} {name:15}: {1e3 * row['seconds']:6.2f} ms ({1e3 * row['fastest_seconds']:.2f}), "
                f"{row['ratio']:.2f} times, {row['defended_ratio']:.2f} of the defended float merge; "
                f"{row['held_bytes'] / 1e6:.1f} MB in the buffer, "
                f"{row['bytes'] / 1e6:.1f} MB beside it"
            )
    RESULTS.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
