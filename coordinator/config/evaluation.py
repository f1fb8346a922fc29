"""``[evaluation]``: what is made of metrics."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated

from pydantic import Field

from .section import Section

__all__ = ["EvaluationSection"]


class EvaluationSection(Section):
    """
    What is made of metrics.

    ``metric`` is watched, and should grow unless ``minimise``; where neither is set and the task has no accuracy, the
    loss is watched. The run ends after ``patience`` versions without a better one (0: never). A merge that makes it
    worse by more than ``guard`` is rolled back; after three such in a row the run is paused. Each
    ``federated_every``-th version, ``federated_devices`` devices are asked how it does on their own samples; of fewer
    than ``federated_minimum`` answers nothing is kept. After ``learns_within`` merges whose median is no better than
    version 0 the run says so, with the settings to look at (0: never).
    """

    metric: str = "accuracy"
    minimise: bool = False
    patience: Annotated[int, Field(ge=0)] = 0
    guard: Annotated[float, Field(gt=0)] | None = None
    federated_devices: Annotated[int, Field(ge=0)] = 0
    federated_every: Annotated[int, Field(ge=1)] = 5
    federated_minimum: Annotated[int, Field(ge=1)] = 3
    learns_within: Annotated[int, Field(ge=0)] = 30

    @property
    def has_direction(self) -> bool:
        """Whether it is known which values of the metric are better: the run file says so, or its name does."""
        return self.metric in ("accuracy", "loss") or "minimise" in self.model_fields_set

    def for_task(self, metrics: Collection[str]) -> EvaluationSection:
        """The same for a task with these metrics: a loss is always minimised, and watched where nothing else can be."""
        section = self
        if "metric" not in self.model_fields_set and self.metric not in metrics:
            section = self.model_copy(update={"metric": "loss"})
        if section.metric == "loss":
            section = section.model_copy(update={"minimise": True})
        return section
