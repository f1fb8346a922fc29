"""
Federated evaluation: how a version does on the devices' own samples.

A random sample of devices is asked. Of an answer only sums are kept, and of a version with too few
answers nothing: a single device's metrics would say something about its data.
"""

from __future__ import annotations

import collections
import dataclasses
import random
from collections.abc import Mapping, Sequence

from mobile_sdk.errors import Refused

from ..config import EvaluationSection
from ..merge.contribution import MAX_SAMPLES
from ..store.records import VersionRecord

__all__ = ["FederatedEvaluation", "FederatedResult"]


@dataclasses.dataclass(frozen=True)
class FederatedResult:
    """
    What devices say of a version: means over all their samples.

    ``by_tier`` has the same per tier, where enough devices of it have answered.
    """

    version: int
    devices: int
    samples: int
    metrics: Mapping[str, float]
    by_tier: Mapping[str, Mapping[str, float]]


class _Sums:
    def __init__(self) -> None:
        self.devices = 0
        self.samples = 0
        self._totals: dict[str, float] = collections.defaultdict(float)
        self._counts: dict[str, int] = collections.defaultdict(int)

    def add(self, samples: int, metrics: Mapping[str, float]) -> None:
        self.devices += 1
        self.samples += samples
        for name, value in metrics.items():
            self._totals[name] += samples * value
            self._counts[name] += samples  # a device leaves out what is no number

    def means(self) -> dict[str, float]:
        return {name: total / self._counts[name] for name, total in self._totals.items()}


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
        self._sums: dict[str, _Sums] = collections.defaultdict(_Sums)
        self.results: list[FederatedResult] = []

    def begin(self, version: VersionRecord, connected: Sequence[str]) -> None:
        """There is a new version; where one is due, devices are drawn from those ``connected``, then from who comes."""
        if self._section.federated_devices == 0 or version.version % self._section.federated_every:
            return
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
        """The evaluation's name and the version, for a device that :meth:`wants` told of."""
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

        Returns:
            What is known of the version by now, if enough devices have answered.

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
        return self._result()

    def lost(self, device: str) -> None:
        """A device could not evaluate, or has left: another takes its place."""
        if device in self._asked - self._answered:
            self._answered.add(device)
            self._open_places += 1

    def _is_current(self, evaluation: str) -> bool:
        return self._version is not None and evaluation == f"e{self._version.version:08d}"

    def _result(self) -> FederatedResult | None:
        everyone, version = self._sums[""], self._version
        if version is None or everyone.devices < self._section.federated_minimum:
            return None
        tiers = {
            name: sums.means()
            for name, sums in sorted(self._sums.items())
            if name and sums.devices >= self._section.federated_minimum
        }
        result = FederatedResult(version.version, everyone.devices, everyone.samples, everyone.means(), tiers)
        if self.results and self.results[-1].version == version.version:
            self.results.pop()
        self.results.append(result)
        return result
