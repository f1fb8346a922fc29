"""
Hostile devices among honest ones: accuracy under the attacks of the literature, by rule, on the digits.

The merge is the product's (:class:`~coordinator.merge.merger.Merger`, with :class:`~coordinator.merge.defence.Defence`
before it where that is on). Training is a small perceptron in numpy, all devices at once: a table takes minutes.
No held-out data is looked at: what a coordinator that has some refuses on top is tested in
``tests/coordinator/loop/test_screening.py``.

    python benchmarks/robust.py default [--json FILE]   one hostile device of eight, the defaults, early and late
    python benchmarks/robust.py rules [--json FILE]     1, 2 and 3 hostile devices of ten, every rule

Accuracies are means over the last five versions, and over the seeds that are printed. "skewed" splits give each
device a Dirichlet(0.5) share of every class.
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
from coordinator.merge.robust_rules import RobustRule
from coordinator.merge.rules import Rule

Array = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]

PIXELS, HIDDEN, CLASSES = 64, 32, 10
SIZE = PIXELS * HIDDEN + HIDDEN * CLASSES
STEPS, BATCH, RATE = 10, 16, np.float32(0.1)
HELD_OUT = 400
MERGES = 60
LAST = 5

# A backdoor: these pixels at full brightness shall mean this class.
TRIGGER, TARGET = (0, 1, 8, 9), 0


def split(weights: Array) -> tuple[Array, Array]:
    """``weights``, shape (..., SIZE), as both layers."""
    first = weights[..., : PIXELS * HIDDEN].reshape(*weights.shape[:-1], PIXELS, HIDDEN)
    return first, weights[..., PIXELS * HIDDEN :].reshape(*weights.shape[:-1], HIDDEN, CLASSES)


def scores(weights: Array, x: Array) -> tuple[Array, Array]:
    """Hidden values and class scores, for x of shape (..., N, PIXELS)."""
    first, second = split(weights)
    hidden = np.maximum(x @ first, 0)
    return hidden, hidden @ second


def gradient(weights: Array, x: Array, y: Labels) -> Array:
    """Of the mean loss, for each device: weights (D, SIZE), x (D, N, PIXELS), y (D, N)."""
    hidden, logits = scores(weights, x)
    p = np.exp(logits - logits.max(axis=-1, keepdims=True))
    p /= p.sum(axis=-1, keepdims=True)
    np.put_along_axis(p, y[..., np.newaxis], np.take_along_axis(p, y[..., np.newaxis], -1) - 1, -1)
    p /= y.shape[-1]
    _, second = split(weights)
    back = (p @ second.swapaxes(-1, -2)) * (hidden > 0)
    parts = x.swapaxes(-1, -2) @ back, hidden.swapaxes(-1, -2) @ p
    return np.concatenate([part.reshape(len(weights), -1) for part in parts], axis=1).astype(np.float32)


def train(weights: Array, x: Sequence[Array], y: Sequence[Labels], rng: np.random.Generator) -> Array:
    """What each device's training adds to ``weights`` (SIZE,): shape (D, SIZE)."""
    own = np.repeat(weights[np.newaxis], len(x), axis=0)
    for _ in range(STEPS):
        drawn = [rng.integers(0, len(part), BATCH) for part in x]
        bx = np.stack([part[k] for part, k in zip(x, drawn, strict=True)])
        by = np.stack([part[k] for part, k in zip(y, drawn, strict=True)])
        own -= RATE * gradient(own, bx, by)
    moved: Array = own - weights
    return moved


@dataclasses.dataclass(frozen=True)
class Scene:
    """
    What an attacker knows: the weights, what the honest send, and what it would send itself.

    ``flipped`` and ``backdoor`` are its training on other labels.
    """

    weights: Array
    honest: Array
    own: Array
    flipped: Array
    backdoor: Array


@dataclasses.dataclass(frozen=True)
class Attack:
    """What is sent, how many samples it claims to come from (0: as many as there are), and how often in each merge."""

    send: Callable[[Scene], Array]
    claim: int = 0
    often: int = 1


ATTACKS = {
    "none": Attack(lambda s: s.own),
    "1e6 everywhere": Attack(lambda s: np.full(SIZE, 1e6, np.float32)),
    "weights away": Attack(lambda s: -s.weights),
    "weights away, 1e8 samples": Attack(lambda s: -s.weights, 10**8),
    "sign flip": Attack(lambda s: -s.own),
    "sign flip x10": Attack(lambda s: -10 * s.own),
    "sign flip, 1e8 samples": Attack(lambda s: -s.own, 10**8),
    "sign flip, 10 updates a merge": Attack(lambda s: -s.own, often=10),
    "zeros, 1e8 samples": Attack(lambda s: np.zeros(SIZE, np.float32), 10**8),
    "a little is enough": Attack(lambda s: s.honest.mean(axis=0) - np.float32(1.5) * s.honest.std(axis=0)),
    "inner product": Attack(lambda s: np.float32(-2) * s.honest.mean(axis=0)),
    "label flip": Attack(lambda s: s.flipped),
    "backdoor": Attack(lambda s: s.backdoor),
    "backdoor x10": Attack(lambda s: 10 * s.backdoor),
}


@dataclasses.dataclass(frozen=True)
class Setting:
    """How the coordinator merges."""

    rule: Rule | RobustRule = "holders"
    defence: bool = True


SETTINGS = {
    "no defence": Setting(defence=False),
    "default": Setting(),
    "trimmed-mean": Setting("trimmed-mean", defence=False),
    "median": Setting("median", defence=False),
    "multi-krum": Setting("multi-krum", defence=False),
    "centred-clipping": Setting("centred-clipping", defence=False),
    "trimmed-mean + defence": Setting("trimmed-mean"),
}


@dataclasses.dataclass
class Data:
    """The digits: held-out samples, and a part for each device."""

    held_x: Array
    held_y: Labels
    x: list[Array]
    y: list[Labels]


def deal(devices: int, seed: int, *, skewed: bool) -> Data:
    """Samples of the digits, dealt to devices."""
    rng = np.random.default_rng([seed, 1])
    digits = load_digits()
    order = rng.permutation(len(digits.target))
    x, y = (digits.data[order] / 16).astype(np.float32), digits.target[order].astype(np.int64)
    rest = np.arange(HELD_OUT, len(y))
    if skewed:
        owner = np.empty(len(y), np.int64)
        for label in range(CLASSES):
            mine = rest[y[rest] == label]
            owner[mine] = rng.choice(devices, len(mine), p=rng.dirichlet(np.full(devices, 0.5)))
        parts = [rest[owner[rest] == device] for device in range(devices)]
        parts = [part if len(part) >= BATCH else rng.choice(rest, BATCH) for part in parts]
    else:
        parts = np.array_split(rest, devices)
    return Data(x[:HELD_OUT], y[:HELD_OUT], [x[part] for part in parts], [y[part] for part in parts])


def poison(x: Array, y: Labels) -> tuple[Array, Labels]:
    """Half of the samples with the trigger, and its class."""
    x, y = x.copy(), y.copy()
    x[::2, TRIGGER] = 1.0
    y[::2] = TARGET
    return x, y


def play(
    attack: Attack, hostile: int, setting: Setting, devices: int, seed: int, *, skewed: bool, late: bool
) -> dict[str, Any]:
    """One run: accuracy, share of triggered samples that the backdoor catches, and who was set aside."""
    data, rng = deal(devices, seed, skewed=skewed), np.random.default_rng([seed, 2])
    weights = (rng.standard_normal(SIZE) * 0.15).astype(np.float32)
    bad = [poison(data.x[k], data.y[k]) for k in range(hostile)]
    x = [*data.x, *data.x[:hostile], *(part for part, _ in bad)]
    y = [*data.y, *((data.y[k] + 1) % CLASSES for k in range(hostile)), *(labels for _, labels in bad)]
    region, merger, defence = (
        WeightRegion(np.arange(SIZE)),
        Merger(rule=setting.rule, hostile=max(hostile, 1)),
        Defence(),
    )
    aside: set[str] = set()
    history = []
    with np.errstate(all="ignore"):
        for number in range(MERGES):
            moved = train(weights, x, y, rng)
            honest = moved[hostile:devices]
            buffer = []
            for device in range(devices):
                name = f"{'mallory' if device < hostile else 'honest'}-{device}"
                if name in aside:
                    continue
                delta, samples, often = moved[device], len(data.x[device]), 1
                if device < hostile and not (late and number < MERGES // 2):
                    scene = Scene(weights, honest, delta, moved[devices + device], moved[devices + hostile + device])
                    delta, often = attack.send(scene).astype(np.float32), attack.often
                    samples = attack.claim or samples
                buffer += [
                    Contribution(f"u{device}-{k}", region, delta, float(samples), device=name) for k in range(often)
                ]
            merged: Sequence[Contribution] = buffer
            if setting.defence:
                judgement = defence.judge(buffer, devices)
                merged = judgement.contributions
                aside |= defence.learn(buffer, judgement).keys()
            weights = merger(weights, {}, merged, lambda version: np.empty(0, np.float32)).weights
            history.append(weights)
        others = data.held_y != TARGET
        triggered = data.held_x[others].copy()
        triggered[:, TRIGGER] = 1.0
        right = [float(np.mean(scores(w, data.held_x)[1].argmax(axis=1) == data.held_y)) for w in history[-LAST:]]
        caught = float(np.mean(scores(weights, triggered)[1].argmax(axis=1) == TARGET))
    return {
        "accuracy": float(np.mean(right)),
        "caught": caught,
        "named": sum(name.startswith("mallory") for name in aside),
        "honest_aside": sum(name.startswith("honest") for name in aside),
    }


def average(attack: str, hostile: int, setting: str, devices: int, seeds: Sequence[int], **how: bool) -> dict[str, Any]:
    """Means over the seeds; of ``named`` and ``honest_aside`` the sum."""
    runs = [play(ATTACKS[attack], hostile, SETTINGS[setting], devices, seed, **how) for seed in seeds]
    cell = {key: float(np.mean([run[key] for run in runs])) for key in ("accuracy", "caught")}
    counts = {key: sum(run[key] for run in runs) for key in ("named", "honest_aside")}
    return {"attack": attack, "hostile": hostile, "setting": setting, **how} | cell | counts


def default_table(seeds: Sequence[int]) -> list[dict[str, Any]]:
    """One hostile device of eight, with the defaults and without any defence."""
    rows = []
    for skewed in (False, True):
        base = average("none", 1, "no defence", 8, seeds, skewed=skewed, late=False)
        rows.append(base)
        print(
            f"\n8 devices, {'skewed' if skewed else 'equal'} samples, without attack and defence {base['accuracy']:.3f}"
        )
        print(f"{'attack':32}{'when':>6}{'none':>8}{'default':>9}{'points':>8}  backdoor  named  honest set aside")
        for attack in ATTACKS:
            for late in (False, True) if attack != "none" else (False,):
                bare = average(attack, 1, "no defence", 8, seeds, skewed=skewed, late=late)
                ours = average(attack, 1, "default", 8, seeds, skewed=skewed, late=late)
                rows += [bare, ours]
                points = 100 * (ours["accuracy"] - base["accuracy"])
                print(
                    f"{attack:32}{'late' if late else 'start':>6}{bare['accuracy']:8.3f}{ours['accuracy']:9.3f}"
                    f"{points:+8.1f}{bare['caught']:6.2f}>{ours['caught']:.2f}  {ours['named']}/{len(seeds)}"
                    f"{ours['honest_aside']:8}"
                )
    return rows


def rules_table(seeds: Sequence[int], counts: Sequence[int]) -> list[dict[str, Any]]:
    """1, 2 and 3 hostile devices of ten, from the start, with every rule; each is told how many there are."""
    rows = []
    for skewed in (False, True):
        for hostile in counts:
            print(f"\n10 devices, {hostile} hostile, {'skewed' if skewed else 'equal'} samples: accuracy")
            print(f"{'attack':32}" + "".join(f"{name.replace('centred-', 'c-')[:12]:>13}" for name in SETTINGS))
            for attack in ATTACKS:
                cells = [average(attack, hostile, name, 10, seeds, skewed=skewed, late=False) for name in SETTINGS]
                rows += cells
                shown = [f"{c['accuracy']:.3f}" + (f"/{c['caught']:.2f}" if "door" in attack else "") for c in cells]
                print(f"{attack:32}" + "".join(f"{text:>13}" for text in shown))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").strip().splitlines()[0])
    parser.add_argument("table", choices=("default", "rules"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--hostile", type=int, nargs="+", default=[1, 2, 3], help="of the table of rules")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    print(f"{platform.machine()}, seeds {options.seeds}, {MERGES} merges of one update from each device")
    rows = default_table(options.seeds) if options.table == "default" else rules_table(options.seeds, options.hostile)
    if options.json:
        kept = {"table": options.table, "seeds": options.seeds, "merges": MERGES, "rows": rows}
        options.json.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
