"""How a run wants its updates packed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ..errors import ProtocolError

__all__ = ["DTYPES", "UpdateFormat"]

DTYPES = ("float32", "float16", "int16", "int8", "int4")


@dataclasses.dataclass(frozen=True)
class UpdateFormat:
    """
    The packing of updates.

    Args:
        dtype: of an element on the wire. Integers are rounded at random, so that their expectation is the exact value.
        top_k: share of the elements that is sent, those of the largest magnitude, above 0 and at most 0.5; the rest is
            carried over to the device's next update (error feedback). 1 sends all.
        steps: what integers are multiples of, as :meth:`mobile_sdk.payload.steps.Steps.to_text` writes it. Without it,
            as earlier coordinators send it, they have a float32 scale per output channel, the update's own.

    """

    dtype: str = "float32"
    top_k: float = 1.0
    steps: str = ""

    def to_json(self) -> dict[str, Any]:
        """As it travels in an assignment."""
        fields = dataclasses.asdict(self)
        if not self.steps:
            del fields["steps"]
        return fields

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> UpdateFormat:
        """
        Parse and check; an empty mapping is the default.

        Raises:
            ProtocolError: if a field is unknown or out of range.

        """
        unknown = sorted(set(data) - {"dtype", "top_k", "steps"})
        if unknown:
            raise ProtocolError(f"the payload has an unknown field {unknown[0]!r}: update the SDK")
        dtype, top_k, steps = data.get("dtype", "float32"), data.get("top_k", 1.0), data.get("steps", "")
        if dtype not in DTYPES:
            raise ProtocolError(f"the payload has the dtype {dtype!r}; this SDK knows {', '.join(DTYPES)}: update it")
        good = isinstance(top_k, int | float) and not isinstance(top_k, bool) and (0 < top_k <= 0.5 or top_k == 1)
        if not good:
            raise ProtocolError(f"the payload has top_k {top_k!r}; it must be above 0 and at most 0.5, or 1")
        if not isinstance(steps, str):
            raise ProtocolError("the payload's steps are no text")
        return cls(dtype, float(top_k), steps)
