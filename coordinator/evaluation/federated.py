"""
Federated evaluation: how a version does on the devices' own samples.

A random sample of devices is asked. A result is given out once for each evaluation: when everybody who was asked has
answered, or when the next evaluation begins, and only if at least ``federated_minimum`` devices answered. Were it given
out at each answer, the difference of two results would be one device's metrics, which say something about its data.
"""

from __future__ import annotations

import collections
import dataclasses
import random
import statistics
from collections.abc import Mapping, Sequence

from mobile_sdk.errors import Refused

from ..config import EvaluationSection
from ..merge.contribution import MAX_SAMPLES
from ..store.records import VersionRecord

__all__ = ["FederatedEvaluation", "FederatedResult", "trimmed_mean"]


@dataclasses.dataclass(frozen=True)
class FederatedResult:
    """
    What devices say of a version: trimmed means over their samples, see :func:`trimmed_mean`.

    ``by_tier`` has the same per tier, where enough devices of it have answered.
    """

    version: int
    devices: int
    samples: int
    metrics: Mapping[str, float]
    by_tier: Mapping[str, Mapping[str, float]]


# Of the values that devices report, this share is left out at either end before the mean is taken.
TRIM = 0.1

# A device counts for no more than so many times as many samples as the median device: the count is its own word.
MOST_SAMPLES = 4.0

# Results that are kept.
MOST_RESULTS = 1_000

# With fewer values there is nothing to trim.
LEAST_TO_TRIM = 4

# No metric is larger; beyond, sums would overflow, and infinities are no JSON.
LARGEST = 1e9


class _Answers:
    def __init__(self) -> None:
        self._answers: list[tuple[int, Mapping[str, float]]] = []

    def __len__(self) -> int:
        return len(self._answers)

    def add(self, samples: int, metrics: Mapping[str, float]) -> None:
        self._answers.append((samples, metrics))

    @property
    def samples(self) -> int:
        return sum(samples for samples, _ in self._answers)

    def means(self, minimum: int) -> dict[str, float]:
        """Means of the metrics that at least ``minimum`` devices gave: a device leaves out what is no number."""
        names = sorted({name for _, metrics in self._answers for name in metrics})
        given = {name: [(m[name], samples) for samples, m in self._answers if name in m] for name in names}
        return {name: trimmed_mean(values) for name, values in given.items() if len(values) >= minimum}


def trimmed_mean(values: Sequence[tuple[float, int]]) -> float:
    """
    The mean of values weighted by samples, of which no single device decides.

    Args:
        values: pairs of a value and its samples. With four or more, the smallest and the largest ``TRIM`` of them
            (at least one each) are left out; samples count up to ``MOST_SAMPLES`` times their median.

    """
    ordered = sorted((min(max(value, -LARGEST), LARGEST), samples) for value, samples in values)
    if len(ordered) >= LEAST_TO_TRIM:
        cut = max(int(TRIM * len(ordered)), 1)
        ordered = ordered[cut:-cut]
    most = MOST_SAMPLES * statistics.median(samples for _, samples in ordered)
    weights = [min(samples, most) for _, samples in ordered]
    return sum(value * weight for (value, _), weight in zip(ordered, weights, strict=True)) / sum(weights)


class FederatedEvaluation:
    """
    At most one version is evaluated at a time; the next one that is due ends it.

    Args:
        section: how often, and how many devices.
        run: the run's name; fixes the sample together with the version.
        metrics: names that the programs report.

    """

    def __init__(self, section: EvaluationSection, run: str, metrics: Sequence[str]) -> None:
        self._section = section
        self._run = run
        self._names = {"loss", *metrics}
        self._version: VersionRecord | None = None
        self._wanted: set[str] = set()
        self._asked: set[str] = set()
        self._answered: set[str] = set()
        self._open_places = 0
        self._sums: dict[str, _Answers] = collections.defaultdict(_Answers)
        self.results: list[FederatedResult] = []

    def begin(self, version: VersionRecord, connected: Sequence[str]) -> None:
        """There is a new version; where one is due, devices are drawn from those ``connected``, then from who comes."""
        if self._section.federated_devices == 0 or version.version % self._section.federated_every:
            return
        self._finish()
        self._version = version
        draw = random.Random(f"{self._run} {version.version}")
        count = min(self._section.federated_devices, len(connected))
        self._wanted = set(draw.sample(sorted(connected), count))
        self._open_places = self._section.federated_devices - count
        self._asked, self._answered = set(), set()
        self._sums.clear()

    def wants(self, device: str) -> bool:
        """Whether a device that asks for work is to be asked for metrics first."""
        if self._version is None or device in self._asked:
            return False
        return device in self._wanted or self._open_places > 0

    def ask(self, device: str) -> tuple[str, VersionRecord]:
        """
        The evaluation's name and the version, for a device that :meth:`wants` told of.

        Raises:
            ValueError: if no version is being evaluated.

        """
        if self._version is None:
            raise ValueError("there is nothing to evaluate")
        self._asked.add(device)
        if device not in self._wanted:
            self._open_places -= 1
        return f"e{self._version.version:08d}", self._version

    def answer(
        self, device: str, evaluation: str, tier: str, samples: int, metrics: Mapping[str, float]
    ) -> FederatedResult | None:
        """
        A device has answered.

        Args:
            device: who answers.
            evaluation: which one.
            tier: whose program it ran.
            samples: that the means are over.
            metrics: means; others than the programs report are dropped.

        Returns:
            The result, if this was the last answer and there are enough.

        Raises:
            Refused: if the counts are impossible.

        """
        if not 1 <= samples <= MAX_SAMPLES:
            raise Refused("report", f"the evaluation counts {samples} samples; it must be 1 to {MAX_SAMPLES}")
        if not self._is_current(evaluation) or device not in self._asked - self._answered:
            return None  # of a version that is not evaluated any more, or answered twice
        self._answered.add(device)
        known = {name: value for name, value in metrics.items() if name in self._names}
        for key in ("", tier):
            self._sums[key].add(samples, known)
        if len(self._sums[""]) < self._section.federated_devices:
            return None
        return self._finish()

    def lost(self, device: str) -> None:
        """A device could not evaluate, or has left: another takes its place."""
        if device in self._asked - self._answered:
            self._answered.add(device)
            self._open_places += 1

    def _is_current(self, evaluation: str) -> bool:
        return self._version is not None and evaluation == f"e{self._version.version:08d}"

    def _finish(self) -> FederatedResult | None:
        """Give the result out, if there are enough answers; nothing more is added to it."""
        everyone, version, minimum = self._sums[""], self._version, self._section.federated_minimum
        self._version = None
        if version is None or len(everyone) < minimum:
            return None
        tiers = {
            name: answers.means(minimum)
            for name, answers in sorted(self._sums.items())
            if name and len(answers) >= minimum and not 0 < len(everyone) - len(answers) < minimum
        }
        result = FederatedResult(version.version, len(everyone), everyone.samples, everyone.means(minimum), tiers)
        self.results.append(result)
        del self.results[:-MOST_RESULTS]
        return result
