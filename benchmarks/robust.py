"""
One, two or three hostile devices of ten: accuracy with the defence and without, on the digits.

The merge is the product's (:class:`~coordinator.merge.merger.Merger`, and :class:`~coordinator.merge.defence.Defence`
before it); training is a small perceptron in numpy, so that a table takes a minute. Attacks are those of the
literature: sign flip, scaling, zeros, a little is enough (Baruch et al. 2019), inner product manipulation (Xie et al.
2020), label flip, and claims of samples. Held-out metrics are looked at by nothing here: what a coordinator with
held-out data refuses on top is tested in ``tests/coordinator/loop/test_collapse.py``.

    python benchmarks/robust.py [--devices 10] [--merges 60] [--json FILE]
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.datasets import load_digits

from coordinator.merge.contribution import Contribution
from coordinator.merge.defence import Defence
from coordinator.merge.merger import Merger
from coordinator.merge.regions import WeightRegion

Array = npt.NDArray[np.float32]

HIDDEN = 32
SIZE = 64 * HIDDEN + HIDDEN * 10


def split(weights: Array) -> tuple[Array, Array]:
    return weights[: 64 * HIDDEN].reshape(64, HIDDEN), weights[64 * HIDDEN :].reshape(HIDDEN, 10)


def gradient(weights: Array, x: Array, y: npt.NDArray[np.int64]) -> Array:
    first, second = split(weights)
    hidden = np.maximum(x @ first, 0)  # (N, HIDDEN)
    scores = hidden @ second  # (N, 10)
    p = np.exp(scores - scores.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    p[np.arange(len(y)), y] -= 1
    p /= len(y)
    back = (p @ second.T) * (hidden > 0)
    return np.concatenate([(x.T @ back).reshape(-1), (hidden.T @ p).reshape(-1)]).astype(np.float32)


def train(weights: Array, x: Array, y: npt.NDArray[np.int64], rng: np.random.Generator) -> Array:
    own = weights.copy()
    for _ in range(10):
        batch = rng.integers(0, len(x), 16)
        own -= np.float32(0.1) * gradient(own, x[batch], y[batch])
    return own - weights


def accuracy(weights: Array, x: Array, y: npt.NDArray[np.int64]) -> float:
    first, second = split(weights)
    return float(np.mean((np.maximum(x @ first, 0) @ second).argmax(axis=1) == y))


@dataclasses.dataclass
class Scene:
    """What an attacker knows: the weights, what the honest send, and what it would send itself."""

    weights: Array
    honest: Sequence[Array]
    own: Array
    flipped: Array


# By name: what is sent, and how many samples it claims to come from (0: as many as there are).
ATTACKS: dict[str, tuple[Callable[[Scene], Array], int]] = {
    "none": (lambda s: s.own, 0),
    "constant 1e6": (lambda s: np.full(SIZE, 1e6, np.float32), 0),
    "weights away": (lambda s: -s.weights, 0),
    "weights away, 1e8 samples": (lambda s: -s.weights, 10**8),
    "sign flip": (lambda s: -s.own, 0),
    "sign flip x10": (lambda s: -10 * s.own, 0),
    "sign flip, 1e8 samples": (lambda s: -s.own, 10**8),
    "zeros, 1e8 samples": (lambda s: np.zeros(SIZE, np.float32), 10**8),
    "a little is enough": (lambda s: np.mean(s.honest, 0) - np.float32(1.5) * np.std(s.honest, 0), 0),
    "inner product": (lambda s: np.float32(-2) * np.mean(s.honest, 0), 0),
    "label flip": (lambda s: s.flipped, 0),
}


def play(attack: str, hostile: int, *, devices: int, merges: int, defended: bool, seed: int = 0) -> dict[str, Any]:
    """One run; its accuracy on held-out samples, and who was set aside."""
    rng = np.random.default_rng(seed)
    data = load_digits()
    x, y = (data.data / 16).astype(np.float32), data.target.astype(np.int64)
    order = rng.permutation(len(x))
    x, y = x[order], y[order]
    held_x, held_y, x, y = x[:400], y[:400], x[400:], y[400:]
    parts = np.array_split(np.arange(len(x)), devices)
    weights = (rng.standard_normal(SIZE) * 0.15).astype(np.float32)
    region, merger, defence = WeightRegion(np.arange(SIZE)), Merger(), Defence()
    aside: dict[str, str] = {}
    send, claim = ATTACKS[attack]
    for number in range(merges):
        deltas = [train(weights, x[part], y[part], rng) for part in parts]
        buffer = []
        for device, part in enumerate(parts):
            name = f"{'mallory' if device < hostile else 'honest'}-{device}"
            if name in aside:
                continue
            delta, samples = deltas[device], len(part)
            if device < hostile:
                flipped = train(weights, x[part], (y[part] + 1) % 10, rng)
                delta = send(Scene(weights, deltas[hostile:], delta, flipped)).astype(np.float32)
                samples = claim or samples
            buffer.append(Contribution(f"u{number:04d}-{device}", region, delta, float(samples), device=name))
        merged: Sequence[Contribution] = buffer
        if defended:
            judgement = defence.judge(buffer)
            merged = judgement.contributions
            aside |= defence.learn(buffer, judgement)
        with np.errstate(all="ignore"):
            weights = merger(weights, {}, merged, lambda version: weights).weights
    with np.errstate(all="ignore"):
        return {"accuracy": accuracy(weights, held_x, held_y), "aside": sorted(aside)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--devices", type=int, default=10)
    parser.add_argument("--hostile", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--merges", type=int, default=60)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    print(f"{platform.machine()}, seed 0, {options.devices} devices, {options.merges} merges of one update each")
    rows = []
    for hostile in options.hostile:
        print(f"\n{hostile} hostile: accuracy without the defence, with it, and who was set aside")
        for attack in ATTACKS:
            common = {"devices": options.devices, "merges": options.merges}
            bare, defended = (play(attack, hostile, defended=on, **common) for on in (False, True))
            rows.append({"attack": attack, "hostile": hostile, "without": bare["accuracy"], "with": defended})
            named = ", ".join(defended["aside"]) or "nobody"
            print(f"  {attack:28} {bare['accuracy']:.3f}  {defended['accuracy']:.3f}  {named}")
    if options.json:
        options.json.write_text(json.dumps({"devices": options.devices, "merges": options.merges, "rows": rows}))


if __name__ == "__main__":
    main()
