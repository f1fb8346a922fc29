"""
Corrections for asynchrony from the literature, beside a buffer that follows the updates' ages.

A model of the asynchronous loop in numpy: six activities from motion (the strengths of 33 frequencies along six axes),
60 devices of uneven classes, a net of two layers, trips that take their time. No links, memory or defence; sizes of
buffers, concurrency, staleness weights and corrected momentum are the product's own functions. It says what a
correction brings, not what a run of the product comes to.

    python -m benchmarks.asynchrony [--seeds 1 2 3] [--trips 2400]

Every method has its rate tuned on two other seeds with as many trips: that of the devices, of FADAS and CA2FL the
server's. The best one is not at the edge of what was tried. Accuracies are means of the last ten of 40 evaluations on
held-out data; seconds are virtual, until 95 % of synchronous FedAvg's accuracy. Writes
``benchmarks/results/asynchrony.json``. A quarter of an hour on one processor.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import heapq
import itertools
import json
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.server.load import RESULTS, machine
from benchmarks.small_tasks import motion, motion_training
from coordinator.merge.optimisers import corrected
from coordinator.merge.staleness import Constant, Polynomial, StalenessPolicy
from coordinator.simulation.world.scenario import DataSection
from coordinator.simulation.world.split import split
from coordinator.updates.buffer_size import AdaptiveSize

DEVICES, AT_A_TIME, TEN, EVALUATIONS, LAST = 60, 20, 10, 40, 10
STEPS, BATCH, HIDDEN = 10, 16, 32
RATES = [0.025, 0.05, 0.1]
FADAS_RATES, CA2FL_RATES = [0.0005, 0.001, 0.002], [0.1, 0.2, 0.4]
TUNING_SEEDS = (101, 102)
LATE_CLASSES = (4, 5)

Vector = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]


@dataclasses.dataclass(frozen=True)
class Situation:
    """Share of stragglers, ten times slower in the mean (half-normal); whether two classes are on them alone."""

    stragglers: float
    apart: bool = False


@dataclasses.dataclass(frozen=True)
class Update:
    """A device's difference: ``tau`` merges old, and of ``samples`` samples."""

    device: int
    difference: Vector
    tau: int
    samples: int


SITUATIONS = {
    "equal devices": Situation(0.0),
    "60 % stragglers, with two classes of their own": Situation(0.6, apart=True),
}


class Net:
    """198 -> 32 -> 6 with ReLU and cross-entropy; weights as one vector."""

    shapes = ((198, HIDDEN), (HIDDEN,), (HIDDEN, 6), (6,))
    ends = tuple(itertools.accumulate(int(np.prod(shape)) for shape in shapes))

    @classmethod
    def first(cls) -> Vector:
        """Where every run begins."""
        rng = np.random.default_rng(0)
        w1, b1, w2, b2 = (rng.normal(size=s) * np.sqrt(2 / s[0]) if len(s) == 2 else np.zeros(s) for s in cls.shapes)
        return np.concatenate([part.ravel() for part in (w1, b1, w2, b2)])

    @classmethod
    def parts(cls, weights: Vector) -> list[Vector]:
        """Views of the layers' weights."""
        pieces = np.split(weights, cls.ends[:-1])
        return [piece.reshape(shape) for piece, shape in zip(pieces, cls.shapes, strict=True)]

    @classmethod
    def logits(cls, weights: Vector, x: Vector) -> Vector:
        w1, b1, w2, b2 = cls.parts(weights)
        logits: Vector = np.maximum(x @ w1 + b1, 0) @ w2 + b2
        return logits

    @classmethod
    def train(cls, weights: Vector, x: Vector, y: Indices, rate: float, rng: np.random.Generator) -> Vector:
        """What STEPS steps of plain descent change."""
        own = weights.copy()
        w1, b1, w2, b2 = cls.parts(own)
        order = np.concatenate([rng.permutation(len(y)) for _ in range(STEPS * BATCH // len(y) + 1)])
        for batch in order[: STEPS * BATCH].reshape(STEPS, BATCH):
            hidden = np.maximum(x[batch] @ w1 + b1, 0)
            logits = hidden @ w2 + b2
            error = np.exp(logits - logits.max(axis=1, keepdims=True))
            error /= error.sum(axis=1, keepdims=True)
            error[np.arange(BATCH), y[batch]] -= 1
            error *= rate / BATCH
            back = (error @ w2.T) * (hidden > 0)
            w2 -= hidden.T @ error
            b2 -= error.sum(axis=0)
            w1 -= x[batch].T @ back
            b1 -= back.sum(axis=0)
        return own - weights


class Server:
    """Weighs a buffer and makes one step: ``w += sum(s a delta) / sum(a)``, a being samples and s staleness weights."""

    def __init__(self, policy: StalenessPolicy) -> None:
        self.policy = policy

    def step(self, buffer: list[Update]) -> Vector:
        """How the weights move."""
        return self._mean(buffer, self.policy.by_age(np.array([update.tau for update in buffer])))

    @staticmethod
    def _mean(buffer: list[Update], weights: Vector) -> Vector:
        samples = np.array([float(update.samples) for update in buffer])
        mean: Vector = (samples * weights) @ np.stack([update.difference for update in buffer]) / samples.sum()
        return mean


class Relative(Server):
    """Staleness weights over their mean of the last 256 updates: they move weight, and do not shrink the step."""

    def __init__(self, policy: StalenessPolicy) -> None:
        super().__init__(policy)
        self._recent: collections.deque[float] = collections.deque(maxlen=256)

    def step(self, buffer: list[Update]) -> Vector:
        weights = self.policy.by_age(np.array([update.tau for update in buffer]))
        self._recent.extend(weights.tolist())
        return self._mean(buffer, weights / statistics.fmean(self._recent))


class Momentum(Server):
    """Momentum of 0.9; corrected for asynchrony (2402.09247, as the product does it) or as it is."""

    def __init__(self, policy: StalenessPolicy, correct: bool) -> None:
        super().__init__(policy)
        self._correct = correct
        self._mean_step: Vector | float = 0.0

    def step(self, buffer: list[Update]) -> Vector:
        tau = statistics.fmean(update.tau for update in buffer)
        b = corrected(0.9, tau) if self._correct else 0.9
        self._mean_step = b * self._mean_step + (1 - b) * super().step(buffer)
        return self._mean_step


class Fadas(Server):
    """FADAS (Wang et al. 2024): AMSGrad on the buffer's mean; beyond a delay of one, its rate is at most 1 / delay."""

    def __init__(self, rate: float) -> None:
        super().__init__(Constant())
        self._rate = rate
        self._m: Vector | float = 0.0
        self._v: Vector | float = 0.0
        self._largest: Vector | float = 0.0

    def step(self, buffer: list[Update]) -> Vector:
        direction = super().step(buffer)
        delay = max(update.tau for update in buffer)
        self._m = 0.9 * self._m + 0.1 * direction
        self._v = 0.99 * self._v + 0.01 * direction**2
        self._largest = np.maximum(self._largest, self._v)
        rate = self._rate if delay <= 1 else min(self._rate, 1 / delay)
        step: Vector = rate * self._m / (np.sqrt(self._largest) + 1e-6)
        return step


class Ca2fl(Server):
    """CA2FL (Wang et al. 2024): the last update of every device, renewed by those of the buffer; keeps them all."""

    def __init__(self, rate: float) -> None:
        super().__init__(Constant())
        self._rate = rate
        self._last = np.zeros((DEVICES, Net.ends[-1]))

    def step(self, buffer: list[Update]) -> Vector:
        cached = self._last.mean(axis=0)
        news = [dataclasses.replace(u, difference=u.difference - self._last[u.device]) for u in buffer]
        step: Vector = self._rate * (cached + super().step(news))
        for update in buffer:
            self._last[update.device] = update.difference
        return step


@dataclasses.dataclass(frozen=True)
class Method:
    """How a server steps, given a rate of its own; whether sizes follow the ages; whether it waits for rounds."""

    server: Callable[[float], Server]
    adaptive: bool = True
    rounds: bool = False
    server_rates: Sequence[float] = ()  # to try; none: the server's is 1, and the devices' is tuned


METHODS = {
    "FedAvg in rounds": Method(lambda _: Server(Constant()), adaptive=False, rounds=True),
    "buffer of ten": Method(lambda _: Server(Polynomial()), adaptive=False),
    "defaults": Method(lambda _: Server(Polynomial())),
    "relative weights": Method(lambda _: Relative(Polynomial())),
    "momentum, corrected": Method(lambda _: Momentum(Polynomial(), correct=True)),
    "momentum, plain": Method(lambda _: Momentum(Polynomial(), correct=False)),
    "FADAS, buffer of ten": Method(Fadas, adaptive=False, server_rates=FADAS_RATES),
    "FADAS, adaptive": Method(Fadas, server_rates=FADAS_RATES),
    "CA2FL, buffer of ten": Method(Ca2fl, adaptive=False, server_rates=CA2FL_RATES),
    "CA2FL, adaptive": Method(Ca2fl, server_rates=CA2FL_RATES),
}


def _strengths(x: npt.NDArray[np.float32]) -> Vector:
    """Of the frequencies along each axis, as logarithms: (n, 6, 64) -> (n, 198)."""
    strengths: Vector = np.log1p(np.abs(np.fft.rfft(x.astype(np.float64), axis=2))).reshape(len(x), -1)
    return strengths


class World:
    """Who has which samples, and how long each trip takes."""

    def __init__(self, situation: Situation, seed: int) -> None:
        self.rng = np.random.default_rng([seed, 1])
        x, self.y, _ = motion_training()
        held_out = motion().held_out
        assert held_out is not None
        held_x, self.held_y = (np.asarray(array) for array in held_out())
        self.x, self.held_x = _strengths(x), _strengths(held_x)
        self.late = self.rng.permutation(DEVICES) < round(situation.stragglers * DEVICES)
        classes = LATE_CLASSES if situation.apart else ()
        section = DataSection(source="benchmarks.small_tasks:motion_training", alpha=0.3, straggler_classes=classes)
        self.parts = split(section, self.y, None, self.late.tolist(), self.rng)

    def seconds(self, device: int) -> float:
        """How long a trip takes."""
        delay = abs(self.rng.normal()) / np.sqrt(2 / np.pi) * 10 if self.late[device] else 1.0
        return float(delay * self.rng.lognormal(0, 0.1))

    def train(self, device: int, weights: Vector, rate: float) -> Vector:
        part = self.parts[device]
        return Net.train(weights, self.x[part], self.y[part], rate, self.rng)

    def accuracy(self, weights: Vector) -> tuple[float, float]:
        """On all held-out samples, and on those of the classes that stragglers may have to themselves."""
        right = Net.logits(weights, self.held_x).argmax(axis=1) == self.held_y
        return float(right.mean()), float(right[np.isin(self.held_y, LATE_CLASSES)].mean())


def run(method: Method, situation: Situation, seed: int, trips: int, rate: float, server_rate: float) -> dict[str, Any]:
    """One run: the curve as (seconds, accuracy), final accuracies, and the mean age of merged updates."""
    world = World(situation, seed)
    server, sizes = method.server(server_rate), AdaptiveSize(Polynomial().by_age, 1.0, TEN)
    weights, version, merged, now = Net.first(), 0, 0, 0.0
    started = np.zeros(DEVICES, np.int64)
    working: list[tuple[float, int, int, Vector]] = []  # until when, device, version, difference
    idle = set(range(DEVICES))
    buffer: list[tuple[int, int, Vector]] = []
    curve: list[tuple[float, float, float]] = []
    taus: list[int] = []

    def start(most: int) -> None:
        order = sorted(idle, key=lambda device: (started[device], world.rng.random()))
        for device in order[: max(0, most - len(working))]:
            idle.remove(device)
            started[device] += 1
            heapq.heappush(working, (now + world.seconds(device), device, version, world.train(device, weights, rate)))

    while merged < trips:
        if not method.rounds or not working:
            start(max(TEN, min(AT_A_TIME, sizes.concurrency)) if method.adaptive else AT_A_TIME)
        now, device, base, difference = heapq.heappop(working)
        idle.add(device)
        buffer.append((device, base, difference))
        if len(buffer) < (AT_A_TIME if method.rounds else min(sizes.size, AT_A_TIME) if method.adaptive else TEN):
            continue
        updates = [Update(d, delta, version - base, len(world.parts[d])) for d, base, delta in buffer]
        weights = weights + server.step(updates)
        sizes.merged([update.tau for update in updates])
        taus += [update.tau for update in updates]
        version, merged, buffer = version + 1, merged + len(buffer), []
        if merged * EVALUATIONS // trips > len(curve):
            curve.append((now, *world.accuracy(weights)))
    last = curve[-LAST:]
    return {
        "accuracy": statistics.fmean(point[1] for point in last),
        "late_classes": statistics.fmean(point[2] for point in last),
        "age": statistics.fmean(taus),
        "curve": [(seconds, accuracy) for seconds, accuracy, _ in curve],
    }


def tuned(method: Method, situation: Situation, trips: int) -> tuple[float, float]:
    """The devices' and the server's rate: the best, which is not the first or the last that was tried."""
    rates = method.server_rates or RATES

    def pair(rate: float) -> tuple[float, float]:
        return (RATES[1], rate) if method.server_rates else (rate, 1.0)

    def came_to(rate: float) -> float:
        return statistics.fmean(run(method, situation, seed, trips, *pair(rate))["accuracy"] for seed in TUNING_SEEDS)

    came = {rate: came_to(rate) for rate in rates}
    while (best := max(came, key=lambda rate: came[rate])) in (min(came), max(came)):
        rate = best / 2 if best == min(came) else best * 2
        came[rate] = came_to(rate)
    return pair(best)


def compare(situation: Situation, seeds: list[int], trips: int) -> dict[str, Any]:
    """Every method, tuned, seed by seed."""
    rows: dict[str, Any] = {}
    for name, method in METHODS.items():
        rates = tuned(method, situation, trips)
        results = [run(method, situation, seed, trips, *rates) for seed in seeds]
        peers = results if method.rounds else rows["FedAvg in rounds"]["runs"]
        reached = [
            next((seconds for seconds, accuracy in result["curve"] if accuracy >= 0.95 * peer["accuracy"]), None)
            for result, peer in zip(results, peers, strict=True)
        ]
        row = {key: statistics.fmean(result[key] for result in results) for key in ("accuracy", "late_classes", "age")}
        spread = [round(result["accuracy"], 3) for result in results]
        times = "never" if None in reached else f"{statistics.fmean(s for s in reached if s is not None):,.0f} s"
        rows[name] = row | {"rates": rates, "seconds": reached, "runs": results}
        print(
            f"| {name} | {rates[1] if method.server_rates else rates[0]:g} | {row['accuracy']:.3f} "
            f"({', '.join(map(str, spread))}) | {row['late_classes']:.0%} | {times} | {row['age']:.1f} |",
            flush=True,
        )
    for row in rows.values():
        for result in row["runs"]:
            del result["curve"]
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--trips", type=int, default=2400)
    options = parser.parse_args()
    found = {}
    for name, situation in SITUATIONS.items():
        print(f"\n{name}\n\n| method | rate | accuracy | stragglers' classes | 95 % of FedAvg's | age |")
        print("|---|---|---|---|---|---|")
        found[name] = compare(situation, options.seeds, options.trips)
    whole = {"machine": machine(), "trips": options.trips, "seeds": options.seeds, "situations": found}
    (RESULTS / "asynchrony.json").write_text(json.dumps(whole, indent=1) + "\n")


if __name__ == "__main__":
    main()
