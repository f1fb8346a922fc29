"""``[merge]``: when and how updates become a version."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from .section import Section

__all__ = ["MergeSection", "OptimiserSection", "StalenessSection"]


class StalenessSection(Section):
    """
    How much an update counts by its staleness; see :mod:`coordinator.merge.staleness`.

    An update that is more than ``maximum`` versions old is refused, or left out if it became so while it waited.
    """

    policy: Literal["constant", "polynomial", "hinge", "exponential", "age_variance", "distance"] = "polynomial"
    exponent: Annotated[float, Field(gt=0)] = 0.5
    slope: Annotated[float, Field(gt=0)] = 10.0
    threshold: Annotated[int, Field(ge=0)] = 4
    rate: Annotated[float, Field(gt=0)] = 0.1
    beta: Annotated[float, Field(ge=0)] = 1.0
    scale: Annotated[float, Field(gt=0)] = 1.0
    maximum: Annotated[int, Field(ge=0)] | None = None


class OptimiserSection(Section):
    """
    What the server does with the direction of a merge; see :mod:`coordinator.merge.optimisers`.

    ``merge.learning_rate`` is its learning rate. ``correct`` takes off the momentum what asynchrony brings.
    """

    kind: Literal["sgd", "momentum", "adam"] = "sgd"
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.99
    epsilon: Annotated[float, Field(gt=0)] = 1e-3
    correct: bool = True


class MergeSection(Section):
    """
    When and how updates become a version; see :mod:`coordinator.merge`.

    A merge takes ``buffer`` updates by at least ``min_contributors`` devices. ``auto`` makes that the smallest number
    from ``least`` on at which merges are stable, given how stale updates are (:mod:`coordinator.updates.buffer_size`),
    and at most the number of devices at work. A buffer that is not full, and that nothing has come into for
    ``flush_seconds``, is merged as it is (0: never). With ``limit`` updates waiting
    (by default 4 times the buffer), devices have to wait before they upload more. Coordinates that fewer than
    ``min_contributors_per_coordinate`` devices hold do not move. With ``defence`` no
    device counts for more than a few times what the median device does, in length, examples and share of a version;
    devices that are out of line again and again are set aside; and a version whose held-out metrics collapse is not
    published: see :mod:`coordinator.merge.defence`. Robust rules bear ``hostile`` devices of a merge
    (:mod:`coordinator.merge.robust_rules`). With ``keep_updates`` merged updates are not erased, but kept in the state
    directory, so that ``ftte verify-log`` can make every version anew.
    """

    buffer: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    least: Annotated[int, Field(ge=1)] = 10
    rule: Literal["holders", "fixed-K", "trimmed-mean", "median", "multi-krum", "centred-clipping"] = "holders"
    hostile: Annotated[int, Field(ge=1)] = 1
    min_holders: Annotated[float, Field(ge=0)] = 0.0
    learning_rate: Annotated[float, Field(gt=0)] = 1.0
    flush_seconds: Annotated[float, Field(ge=0)] = 600.0
    limit: Annotated[int, Field(ge=1)] | None = None
    min_contributors: Annotated[int, Field(ge=1)] = 1
    min_contributors_per_coordinate: Annotated[int, Field(ge=1)] = 1
    clip_norm: Annotated[float, Field(gt=0)] | None = None
    outlier_factor: Annotated[float, Field(ge=1)] | None = None
    defence: bool = True
    keep_updates: bool = False
    difference: Literal["base", "current"] = "base"
    optimiser: OptimiserSection = OptimiserSection()
    staleness: StalenessSection = StalenessSection()

    def most(self, buffer: int) -> int:
        """How many updates may wait beside a buffer of ``buffer``."""
        return 4 * buffer if self.limit is None else self.limit

    @property
    def smallest(self) -> int:
        """How many updates a merge takes at the least, where there are enough devices."""
        return max(self.least, self.min_contributors) if self.buffer == "auto" else self.buffer

    @property
    def contributors_needed(self) -> int:
        """Distinct devices of a merge with which its rule bears ``hostile`` of them; 1 where it bears none anyway."""
        if self.rule in ("holders", "fixed-K"):
            return 1
        return 2 * self.hostile + (3 if self.rule == "multi-krum" else 1)

    @model_validator(mode="after")
    def _can_be_filled(self) -> MergeSection:
        if self.limit is not None and self.limit < self.smallest:
            raise ValueError(f"limit {self.limit} would never let a buffer of {self.smallest} fill: make it larger")
        for name in ("min_contributors", "min_contributors_per_coordinate"):
            if getattr(self, name) > self.smallest:
                raise ValueError(f"{name} {getattr(self, name)} is more than the buffer of {self.smallest} holds")
        return self

    @model_validator(mode="after")
    def _bears_what_it_says(self) -> MergeSection:
        needed = self.contributors_needed
        if self.min_contributors < needed:
            raise ValueError(
                f"the rule {self.rule} bears hostile = {self.hostile} in merges of {needed} devices or more: set "
                f"min_contributors = {needed}"
            )
        return self
