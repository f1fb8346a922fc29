"""
What becomes of a class that only a straggler has, and whether weights or waiting bring it back.

    python -m benchmarks.late_classes [--seeds 1 2 3] [--trips 900] [--methods NAME ...]

Digits on ten devices with one class each; two of them take 14 times as long in the mean (half-normal), as in
``python -m benchmarks.defaults --one-class``. A model of that run: torch trains, the product's merger with its
staleness weights and its defence merges ten updates at a time, all devices work all the time. No memory, links or
search for a rate, which is 0.05. Accuracies are means of the last ten versions on held-out digits. Writes
``benchmarks/results/late_classes.json``. About 40 seconds a run on one processor.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import heapq
import json
import math
import statistics

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.server.load import RESULTS, machine
from coordinator.merge.contribution import Contribution
from coordinator.merge.defence import Defence
from coordinator.merge.merger import Merger
from coordinator.merge.regions import WeightRegion
from coordinator.merge.staleness import Polynomial
from exporters.zoo import digits_data
from exporters.zoo.digits import task

DEVICES, LATE, TIMES, RATE, BATCH, STEPS, LAST = 10, 2, 14.0, 0.05, 16, 10, 10

Counts = npt.NDArray[np.float64]
Vector = npt.NDArray[np.float32]


@dataclasses.dataclass(frozen=True)
class Method:
    """
    How updates count and who works.

    Args:
        most: an update counts as many times more as its device has sent fewer than the mean, but at most so many.
        ahead: a device waits while it has sent more than so many times what the last one has; 0: nobody waits.
        at_a_time: devices at work, those that sent least first.

    """

    most: float = 1.0
    ahead: float = 0.0
    at_a_time: int = DEVICES


METHODS = {
    "defaults": Method(),
    "rare devices count up to 4 times": Method(most=4.0),
    "rare devices count up to 8 times": Method(most=8.0),
    "nobody is twice ahead": Method(ahead=2.0),
    "four at a time": Method(at_a_time=4),
}


class Digits:
    """The task's net and data, with its weights as one vector."""

    def __init__(self) -> None:
        assert task.held_out is not None
        self.x, self.y = (torch.from_numpy(np.asarray(array)) for array in digits_data.load()[0])
        self._held = tuple(torch.from_numpy(np.asarray(array)) for array in task.held_out())
        self._model = copy.deepcopy(task.model).train()
        self._parameters = list(self._model.parameters())
        self.first = self._vector()

    def _vector(self) -> Vector:
        with torch.no_grad():
            vector: Vector = torch.nn.utils.parameters_to_vector(self._parameters).numpy().copy()
        return vector

    def _set(self, weights: Vector) -> None:
        with torch.no_grad():
            # A copy: the parameters are views of it, which training changes.
            torch.nn.utils.vector_to_parameters(torch.from_numpy(weights.copy()), self._parameters)

    def train(self, weights: Vector, own: npt.NDArray[np.int64], rng: np.random.Generator) -> Vector:
        """What a device's passes change: as many as make STEPS steps."""
        self._set(weights)
        optimiser = torch.optim.SGD(self._parameters, RATE)
        for _ in range(math.ceil(STEPS / math.ceil(len(own) / BATCH))):
            for batch in torch.split(torch.from_numpy(rng.permutation(len(own))), BATCH):
                optimiser.zero_grad()
                loss = torch.nn.functional.cross_entropy(self._model(self.x[own][batch]), self.y[own][batch])
                torch.autograd.backward(loss)
                optimiser.step()
        return self._vector() - weights

    def accuracies(self, weights: Vector, late: list[int]) -> tuple[float, float]:
        """Of all classes, and of the stragglers' alone."""
        self._set(weights)
        with torch.no_grad():
            right = (self._model(self._held[0]).argmax(1) == self._held[1]).numpy()
        return float(right.mean()), float(right[np.isin(self._held[1].numpy(), late)].mean())


class World:
    """Whose class is which, who is slow, and how long trips take."""

    def __init__(self, digits: Digits, seed: int) -> None:
        self.rng = np.random.default_rng([seed, 3])
        classes = self.rng.permutation(DEVICES)
        self.parts = [np.flatnonzero(digits.y.numpy() == each) for each in classes]
        self.slow = np.zeros(DEVICES, bool)
        self.slow[self.rng.permutation(DEVICES)[:LATE]] = True
        self.late = classes[self.slow].tolist()

    def seconds(self, device: int) -> float:
        """Of a trip."""
        times = TIMES * abs(self.rng.normal()) / math.sqrt(2 / math.pi) if self.slow[device] else 1.0
        return float(1.3 * math.exp(0.2 * self.rng.normal()) * times)


def fedavg(digits: Digits, seed: int, trips: int) -> dict[str, float]:
    """Rounds of all devices (McMahan et al. 2017)."""
    world, weights, now = World(digits, seed), digits.first, 0.0
    samples = sum(map(len, world.parts))
    curve = []
    for _ in range(trips // DEVICES):
        now += max(world.seconds(device) for device in range(DEVICES))
        moves = (digits.train(weights, own, world.rng) * (len(own) / samples) for own in world.parts)
        weights = (weights + sum(moves)).astype(np.float32)
        curve.append(weights)
    return _result([digits.accuracies(each, world.late) for each in curve[-LAST:]], now)


def play(digits: Digits, method: Method, seed: int, trips: int) -> dict[str, float]:
    """One run of ``trips`` merged updates."""
    world, weights, now, version = World(digits, seed), digits.first, 0.0, 0
    merger, defence, region = Merger(policy=Polynomial()), Defence(), WeightRegion(np.arange(len(digits.first)))
    counts = np.zeros(DEVICES)
    waiting, working = list(range(DEVICES)), 0
    trips_under_way: list[tuple[float, int, int, int, Vector]] = []
    begun, buffer, curve = 0, [], []
    while version * DEVICES < trips:
        waiting.sort(key=lambda device: counts[device])
        for device in list(waiting):
            if working < method.at_a_time and (not method.ahead or counts[device] <= method.ahead * (counts.min() + 1)):
                waiting.remove(device)
                working, begun = working + 1, begun + 1
                heapq.heappush(trips_under_way, (now + world.seconds(device), begun, device, version, weights))
        now, number, device, base, start = heapq.heappop(trips_under_way)
        working -= 1
        counts[device] += 1
        waiting.append(device)
        delta = digits.train(start, world.parts[device], world.rng)
        buffer.append((number, device, base, delta))
        if len(buffer) < DEVICES:
            continue
        updates = [
            Contribution(f"a{k:03}", region, delta, float(len(world.parts[d])), version - base, base, f"d{d}").exact()
            for k, (_, d, base, delta) in enumerate(buffer)
        ]
        judgement = defence.judge(updates, working)
        defence.learn(updates, judgement)
        raised = [_raised(c, counts, method.most) for c in judgement.contributions]
        weights = merger(weights, {}, raised, _no_weights).weights
        version, buffer = version + 1, []
        curve.append(weights)
    return _result([digits.accuracies(each, world.late) for each in curve[-LAST:]], now)


def _raised(c: Contribution, counts: Counts, most: float) -> Contribution:
    """An update that counts more where its device has sent few, and less where it has sent many."""
    if most == 1:
        return c
    return dataclasses.replace(c, factor=c.factor * min(most, float(counts.mean() / counts[int(c.device[1:])])))


def _no_weights(version: int) -> Vector:
    raise ValueError(f"nobody looks at version {version}")


def _result(curve: list[tuple[float, float]], seconds: float) -> dict[str, float]:
    both = [statistics.fmean(each) for each in zip(*curve, strict=True)]
    return {"accuracy": both[0], "late_classes": both[1], "seconds": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--trips", type=int, default=900)
    parser.add_argument("--methods", nargs="+", choices=["fedavg", *METHODS], default=["fedavg", *METHODS])
    options = parser.parse_args()
    torch.set_num_threads(1)
    digits = Digits()
    out = RESULTS / "late_classes.json"
    known = json.loads(out.read_text()) if out.exists() else {"runs": {}}
    for name in options.methods:
        for seed in options.seeds:
            if name == "fedavg":
                row = fedavg(digits, seed, options.trips)
            else:
                row = play(digits, METHODS[name], seed, options.trips)
            known["runs"].setdefault(f"{name}, {options.trips} trips", {})[str(seed)] = row
            print(f"{name}, seed {seed}: {', '.join(f'{key} {value:.3f}' for key, value in row.items())}", flush=True)
            out.write_text(json.dumps({**known, "machine": machine()}, indent=1) + "\n")


if __name__ == "__main__":
    main()
