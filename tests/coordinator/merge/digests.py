"""
Hashes of versions, as JSON: of plain merges, and of those with everything that looks at single updates.

A program of its own, which needs no more than numpy and scipy: other processors run it, too (``scripts/arm.py``).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from coordinator.merge.contribution import Contribution
from coordinator.merge.defence import Defence
from coordinator.merge.directions import device_directions
from coordinator.merge.merger import Merger
from coordinator.merge.optimisers import ServerAdam, ServerMomentum
from coordinator.merge.regions import WeightRegion
from coordinator.merge.staleness import AgeVariance, Distance, Exponential, Polynomial
from coordinator.merge.step_sizes import StepSizes, Vote, wanted_ranges
from mobile_sdk.layout import Vector
from mobile_sdk.payload import SteppedVector, Steps
from mobile_sdk.payload.steps import BITS, OPEN

SIZE = 20_011
START = 5_000
# A generator of integers only: draws of numpy's normal numbers could differ by themselves.
bits = np.random.Generator(np.random.PCG64(5))


def draw(n: int) -> Vector:
    """Multiples of a power of two, more of them small than large."""
    integers = bits.integers(-(2**20), 2**20, n) * bits.integers(1, 2**10, n)
    return (integers.astype(np.float64) * 2.0**-34).astype(np.float32)


weights = draw(SIZE)
versions = {base: weights + draw(SIZE) for base in range(5)}


def buffer_of_floats() -> list[Contribution]:
    """Updates of two regions."""
    buffer = []
    for number in range(24):
        region = WeightRegion(np.arange(0 if number % 3 else START, SIZE))
        tau = int(bits.integers(0, 5))
        samples = int(bits.integers(1, 500))
        buffer.append(Contribution(f"a{number:08d}", region, draw(len(region)), samples, tau, tau, f"d{number}"))
    return buffer


def with_integers(buffer: Sequence[Contribution], dtypes: Sequence[str]) -> list[Contribution]:
    """The same buffer with integers for floats: of these dtypes in turn, and of two kinds of steps."""
    changed = []
    for number, c in enumerate(buffer):
        dtype = dtypes[number % len(dtypes)]
        if dtype in BITS:
            # Sixteen channels and a rest, and one vector.
            shapes = [(16, 900), (len(c.region) - 14_400,)]
            exponents = bits.integers(-20, -8, 17) if number < 4 else np.arange(-20, -3)
            most = 2 ** BITS[dtype] - 1
            integers = bits.integers(-most, most + 1, len(c.region))
            kind: Any = np.int16 if dtype == "int16" else np.int8
            steps = Steps(shapes, exponents.astype(np.int8))
            c = dataclasses.replace(c, delta=SteppedVector(integers.astype(kind), steps, BITS[dtype]))
        changed.append(c)
    return changed


def digest(merger: Merger, buffer: Sequence[Contribution]) -> str:
    """Of the version after the next one."""
    result = merger(weights, {}, buffer, versions.__getitem__)
    again = merger(result.weights, result.state, buffer, versions.__getitem__)
    parts = [again.weights.tobytes(), *(again.state[name].tobytes() for name in sorted(again.state))]
    return hashlib.sha256(b"".join(parts)).hexdigest()


def digest_defended(merger: Merger, buffer: Sequence[Contribution], order: int = 1) -> str:
    """The same with the defence in front, which takes sums on the way."""
    judgement = Defence().judge(buffer[::order], 0, merger.weigh)
    judged = judgement.contributions[::order]
    result = merger(weights, {}, judged, versions.__getitem__, judgement.sums)
    assert result.weights.tobytes() == merger(weights, {}, judged, versions.__getitem__).weights.tobytes()
    return digest(merger, judged)


def digest_of_steps(buffer: Sequence[Contribution]) -> str:
    """Of what the steps of the next updates follow from."""
    sizes = StepSizes()
    sizes.merged(
        Vote(str(len(c.region)), c.device, wanted_ranges(c.delta)) for c in buffer if isinstance(c.delta, SteppedVector)
    )
    ranges = sizes.next({str(SIZE): np.full(17, OPEN, np.int8)})
    return hashlib.sha256(b"".join(ranges[name].tobytes() for name in sorted(ranges))).hexdigest()


def digest_of_directions(buffer: Sequence[Contribution]) -> str:
    """Of how devices point to all others, of each region."""
    regions: dict[int, dict[str, list[Contribution]]] = {}
    for number, c in enumerate(buffer):
        # Every fourth update is of the device of the one before the last.
        device = buffer[number - 2].device if number % 4 == 3 else c.device
        regions.setdefault(len(c.region), {}).setdefault(device, []).append(c)
    found = [repr(direction) for _, devices in sorted(regions.items()) for direction in device_directions(devices)]
    return hashlib.sha256("".join(found).encode()).hexdigest()


def main() -> None:
    """Print the list."""
    buffer = buffer_of_floats()
    # Some are too long by far, and all are as a device's upload leaves them: multiples of a step, with a bound.
    long = [c.times(np.float32(300 if c.device == "d7" else 1)).exact() for c in buffer]
    plain = Merger(policy=Polynomial(0.5))
    found = [
        digest(plain, buffer),
        digest(Merger(policy=Exponential(0.3), rule="fixed-K", optimiser=ServerMomentum(0.7, 0.9)), buffer),
        digest(Merger(policy=AgeVariance(), clip_norm=1.5, outlier_factor=3.0, optimiser=ServerAdam()), buffer),
        digest(Merger(policy=Distance(), min_holders=30.0, difference="current"), buffer),
        digest_defended(plain, long),
        digest_defended(plain, long, -1),
        *(
            digest(Merger(rule=rule, hostile=3), buffer)
            for rule in ("trimmed-mean", "median", "multi-krum", "centred-clipping")
        ),
    ]
    directions = [digest_of_directions(buffer)]
    for dtypes in (["int8"], ["int4"], ["int16"], ["int8", "float32", "int4", "int16"]):
        integers = with_integers(buffer, dtypes)
        directions.append(digest_of_directions(integers))
        found += [digest(plain, integers), digest(Merger(rule="median", hostile=3), integers)]
        found += [digest_defended(plain, integers), digest_of_steps(integers)]
    print(json.dumps(found + directions))


if __name__ == "__main__":
    main()
