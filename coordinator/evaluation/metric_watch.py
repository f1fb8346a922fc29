"""What the metrics say of a run: which version is the best, whether it still gets better, whether a merge has hurt."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping

from ..config import EvaluationSection
from ..store.records import VersionOutline, VersionRecord

__all__ = ["MetricWatch"]

# After so many rollbacks in a row something is wrong that another merge will not mend.
MAX_ROLLBACKS = 3


# A version collapses where the loss is so many times the last one's, or where so much is lost of what was gained since
# version 0: of the accuracy, once that is more than a little, and of the loss, once so much of it is gone. In a run's
# first versions accuracy alone leaps up and down, whoever takes part.
COLLAPSED_LOSS = 3.0
COLLAPSED_SHARE = 0.5
LEARNED = 0.1
LEARNED_LOSS = 0.2


@dataclasses.dataclass(frozen=True)
class _Best:
    version: int
    value: float


class MetricWatch:
    """
    Follows one metric over the versions.

    Args:
        section: which metric, and what is done about it.
        versions: those that there are, oldest first.

    """

    def __init__(self, section: EvaluationSection, versions: Iterable[VersionOutline | VersionRecord]) -> None:
        self._section = section
        self._best: _Best | None = None
        self._values: dict[int, float] = {}
        self._losses: dict[int, float] = {}
        self._parents: dict[int, int] = {}
        self._merges_since_best = 0
        self._rollbacks = 0
        self._refused = 0
        self._first: float | None = None
        self._first_loss: float | None = None
        for version in versions:
            self.see(version)

    @property
    def best(self) -> int | None:
        """
        The version with the best metric, the oldest of equals; none if there is no such metric.

        A version that was rolled back is not part of the run any more, and is never the best.
        """
        return None if self._best is None else self._best.version

    @property
    def least_loss(self) -> float:
        """The least loss on held-out data of a version that was not rolled back; infinite without such data."""
        return min(self._losses.values(), default=math.inf)

    def see(self, version: VersionOutline | VersionRecord) -> None:
        """There is a new version."""
        if version.version == 0:
            self._first = version.metrics.get("accuracy")
            self._first_loss = version.metrics.get("loss")
        self._refused = 0
        if "loss" in version.metrics:
            self._losses[version.version] = version.metrics["loss"]
        value = self._value(version)
        self._parents[version.version] = version.parent
        if version.kind == "rollback":
            self._rollbacks += 1
            self._forget_all_but(self._line(version.parent))
        else:
            self._merges_since_best += 1
            if self.harm(version) is None:
                self._rollbacks = 0
        if value is None:
            return
        self._values[version.version] = value
        if version.kind != "rollback" and (self._best is None or value > self._best.value):
            self._best = _Best(version.version, value)
            self._merges_since_best = 0

    def _line(self, version: int) -> set[int]:
        """The version and what it came from."""
        line = set()
        while version >= 0:
            line.add(version)
            version = self._parents.get(version, -1)
        return line

    def _forget_all_but(self, line: set[int]) -> None:
        """Versions off the line were rolled back: the best is found among the others."""
        self._values = {number: value for number, value in self._values.items() if number in line}
        self._losses = {number: loss for number, loss in self._losses.items() if number in line}
        if self._best is not None and self._best.version not in line:
            found = max(self._values, key=lambda number: (self._values[number], -number), default=None)
            self._best = None if found is None else _Best(found, self._values[found])

    def exhausted(self) -> str | None:
        """Why the run should end, if it does not get better any more."""
        if self._best is None or not 0 < self._section.patience <= self._merges_since_best:
            return None
        return (
            f"{self._section.metric} has not become better than {self._shown(self._best.value)} of version "
            f"{self._best.version} for {self._merges_since_best} versions"
        )

    def reached(self, goal: float, metrics: Mapping[str, float]) -> str | None:
        """Why the run should end, if a version with these metrics is as good as ``goal`` or better."""
        value = metrics.get(self._section.metric)
        if value is None or not (value <= goal if self._section.minimise else value >= goal):
            return None
        return f"the {self._section.metric} {value:.4f} has reached {goal:g}"

    def harm(self, version: VersionOutline | VersionRecord) -> str | None:
        """Why a version should be rolled back, if its merge has hurt."""
        if self._section.guard is None or version.kind != "merge":
            return None
        before = self._values.get(version.parent)
        if before is None:
            return None
        value = self._value(version)
        if value is not None and before - value <= self._section.guard:
            return None
        now = "no number" if value is None else self._shown(value)
        return (
            f"{self._section.metric} went from {self._shown(before)} to {now} with version {version.version}; "
            f"{self._section.guard:g} is allowed"
        )

    def collapse(self, metrics: Mapping[str, float], before: VersionRecord) -> str | None:
        """
        Why a version should not be published at all, if its metrics collapse.

        That is no matter of taste, unlike ``guard``: the loss has grown several times over, or most of what the run
        has learned is gone.

        Args:
            metrics: of the version that would be published.
            before: the newest version.

        """
        loss, was = metrics.get("loss"), before.metrics.get("loss")
        if was is not None and (loss is None or loss > COLLAPSED_LOSS * was + 1.0):
            return f"the loss went from {was:.4g} to {'no number' if loss is None else f'{loss:.4g}'}"
        value, last = metrics.get("accuracy"), before.metrics.get("accuracy")
        if value is None or last is None or self._first is None:
            return None
        gained = last - self._first
        if gained <= LEARNED or last - value <= COLLAPSED_SHARE * gained:
            return None
        if loss is not None and was is not None and self._first_loss is not None:
            learned = self._first_loss - was
            if learned <= LEARNED_LOSS * self._first_loss or loss - was <= COLLAPSED_SHARE * learned:
                return None
        return f"the accuracy went from {last:.4f} to {value:.4f}"

    def refuse(self) -> bool:
        """A version is refused for its metrics; false if that has happened too often in a row."""
        self._refused += 1
        return self._refused <= MAX_ROLLBACKS

    @property
    def hopeless(self) -> bool:
        """Whether rolling back does not help any more."""
        return self._rollbacks >= MAX_ROLLBACKS

    def give_up(self) -> None:
        """The operator is called; counting begins anew."""
        self._rollbacks = 0

    def _value(self, version: VersionOutline | VersionRecord) -> float | None:
        """Larger is better."""
        value = version.metrics.get(self._section.metric)
        if value is None:
            return None
        return -value if self._section.minimise else value

    def _shown(self, value: float) -> str:
        return f"{-value if self._section.minimise else value:.4f}"
