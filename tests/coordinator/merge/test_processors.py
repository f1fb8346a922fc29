"""The next version is the same, bit for bit, whatever the processor: BLAS and numpy take other paths on each."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

# Hashes of versions: of plain merges, and of those with everything that looks at single updates.
PROGRAM = """
import hashlib, json
import numpy as np
import dataclasses
from coordinator.merge.contribution import Contribution
from coordinator.merge.defence import Defence
from coordinator.merge.merger import Merger
from coordinator.merge.optimisers import ServerAdam, ServerMomentum
from coordinator.merge.regions import WeightRegion
from coordinator.merge.staleness import AgeVariance, Distance, Exponential, Polynomial

SIZE = 20_011
# A generator of integers only: draws of numpy's normal numbers could differ by themselves.
bits = np.random.Generator(np.random.PCG64(5))
def draw(n):
    integers = bits.integers(-2**20, 2**20, n) * bits.integers(1, 2**10, n)
    return (integers.astype(np.float64) * 2.0**-34).astype(np.float32)
weights = draw(SIZE)
versions = {base: weights + draw(SIZE) for base in range(5)}
buffer = []
for number in range(24):
    start = 0 if number % 3 else 5_000
    region = WeightRegion(np.arange(start, SIZE))
    tau = int(bits.integers(0, 5))
    samples = int(bits.integers(1, 500))
    buffer.append(Contribution(f"a{number:08d}", region, draw(len(region)), samples, tau, tau, f"d{number}"))
# Some are too long by far, and all are as a device's upload leaves them: multiples of a step, with a bound.
long = [dataclasses.replace(c, delta=c.delta * np.float32(300 if c.device == "d7" else 1)).exact() for c in buffer]
def digest(merger, buffer=buffer):
    result = merger(weights, {}, buffer, versions.__getitem__)
    again = merger(result.weights, result.state, buffer, versions.__getitem__)
    parts = [again.weights.tobytes(), *(again.state[name].tobytes() for name in sorted(again.state))]
    return hashlib.sha256(b"".join(parts)).hexdigest()
print(json.dumps([
    digest(Merger(policy=Polynomial(0.5))),
    digest(Merger(policy=Exponential(0.3), rule="fixed-K", optimiser=ServerMomentum(0.7, 0.9))),
    digest(Merger(policy=AgeVariance(), clip_norm=1.5, outlier_factor=3.0, optimiser=ServerAdam())),
    digest(Merger(policy=Distance(), min_holders=30.0, difference="current")),
    digest(Merger(policy=Polynomial(0.5)), Defence().judge(long).contributions),
    digest(Merger(policy=Polynomial(0.5)), Defence().judge(long[::-1]).contributions[::-1]),
    *(digest(Merger(rule=rule, hostile=3)) for rule in ("trimmed-mean", "median", "multi-krum", "centred-clipping")),
]))
"""

# What every processor must give. A change of the arithmetic changes these, and nothing else may.
KNOWN = [
    "f45795c13bf63d0d1feeb75edab9ed08779e875683899779e09aa2f9b5c7c2f8",
    "5b6e4b0311cc45036699466843f2df135ba009d2b69f9029759b83a55133475a",
    "56e2ba7e29066c07160ff408f4b05e7383361310f3e0046a7194399ae706f9de",
    "df0ee6176457f9d424a648daca01787fbc83c2cf794adbc3623c76483bba7397",
    "19ef64a059228265f39f45e6f985328beebd57418b4cfe11ae9f8780c17a33e0",
    "19ef64a059228265f39f45e6f985328beebd57418b4cfe11ae9f8780c17a33e0",
    "748362eeae5aa84d215e2b70d496ee93940a94d275506c27d4fec5c8d613a00f",
    "964565542e398e5ca722474096a60f56d8f992509d68a370c3cb2c10ff051f78",
    "53694f036fdb8ec10338de3a378f79a201b85e5cab3a8977ada90788edd9b5a2",
    "5f808d286da6531a9c12c06f892976f8b185d4467423ac4f9394520917cb1b6a",
]

PATHS = [
    {},
    {"OPENBLAS_CORETYPE": "Prescott"},
    {"OPENBLAS_CORETYPE": "Sandybridge"},
    {"OPENBLAS_CORETYPE": "Haswell"},
    {"OPENBLAS_CORETYPE": "SkylakeX"},
    {"OPENBLAS_CORETYPE": "Zen"},
    {"OPENBLAS_NUM_THREADS": "1", "NPY_DISABLE_CPU_FEATURES": "AVX2 FMA3 AVX512F AVX512CD AVX512_SKX"},
]


def digests(path: dict[str, str]) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM],
        env=os.environ | path,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode < 0 or "Illegal instruction" in done.stderr:
        pytest.skip("this processor cannot take that path")
    assert done.returncode == 0, done.stderr
    found: list[str] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("path", PATHS, ids=lambda path: " ".join(path.values()) or "own")
def test_every_path_of_the_processor_gives_the_same_versions(path: dict[str, str]) -> None:
    assert digests(path) == KNOWN
