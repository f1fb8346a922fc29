"""One update, ready to be merged."""

from __future__ import annotations

import dataclasses

import numpy as np

from mobile_sdk.layout import Vector
from mobile_sdk.payload import SteppedVector

from .regions import WeightRegion
from .squares import norm
from .sums import Elements, largest_magnitude, to_steps

__all__ = ["Contribution"]


@dataclasses.dataclass(frozen=True)
class Contribution:
    """
    An update of the buffer.

    Args:
        id: the update's id; fixes the order in which updates are looked at.
        region: where its elements belong.
        delta: new minus old weights there: float32, shape ``(len(region),)``, or as many integers on steps.
        examples: the example weight a, such as the number of samples; above 0.
        staleness: versions merged between the one it was trained from and the one it is merged into.
        base: the version it was trained from.
        device: who sent it.
        factor: of the staleness weight, 0 to 1: what of the update counts in the sum, but not in the divisor.
        scale: what its elements were multiplied with before.
        largest: an upper bound of the magnitude of its elements, where these are multiples of
            :data:`~coordinator.merge.sums.STEP`; none: not known, and they may be any.
        length: the Euclidean norm of its elements, as :func:`~coordinator.merge.squares.norm` gives it; none: not
            known.

    """

    id: str
    region: WeightRegion
    delta: Elements
    examples: float
    staleness: int = 0
    base: int = 0
    device: str = ""
    factor: float = 1.0
    scale: float = 1.0
    largest: float | None = None
    length: float | None = dataclasses.field(default=None, compare=False)

    def values(self, where: slice = slice(None)) -> Vector:
        """
        Its elements: float32, shape ``(len(region),)``; of integers a new array each time.

        Args:
            where: a slice of them, without a step.

        """
        return self.delta.values(where) if isinstance(self.delta, SteppedVector) else self.delta[where]

    def times(self, factor: np.float32) -> Contribution:
        """The same with every element times ``factor``."""
        return dataclasses.replace(self, delta=self.values() * factor, largest=None, length=None)

    def norm(self) -> float:
        """The Euclidean norm of its elements, computed where it is not known."""
        return norm(self.delta) if self.length is None else self.length

    def measured(self) -> Contribution:
        """The same with its norm known."""
        return self if self.length is not None else dataclasses.replace(self, length=norm(self.delta))

    def exact(self) -> Contribution:
        """The same with elements that are multiples of a step, and a bound."""
        if self.largest is not None:
            return self
        delta = self.delta if isinstance(self.delta, SteppedVector) else to_steps(self.delta)
        return dataclasses.replace(self, delta=delta, largest=largest_magnitude(delta), length=None)


# An example weight beyond this is a mistake or an attack on the average.
MAX_SAMPLES = 100_000_000
