"""What is trained, as data."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from mobile_sdk.layout import Layout, Subset

from .errors import ExportError
from .task import Task

__all__ = ["Plan"]


@dataclasses.dataclass(frozen=True)
class Plan:
    """The trained subset of a task's parameters, and how many samples a step takes."""

    subset: Subset
    micro_batch: int

    def __post_init__(self) -> None:
        if not len(self.subset):
            raise ExportError("the plan trains nothing; name at least one parameter")
        if self.micro_batch < 1:
            raise ExportError(f"the plan has the micro-batch {self.micro_batch}; it must be at least 1")

    @classmethod
    def everything(cls, task: Task, micro_batch: int | None = None) -> Plan:
        """All parameters of ``task``, at its own micro-batch or another."""
        subset = Subset.whole(task.layout, task.parameter_names())
        return cls(subset, task.micro_batch if micro_batch is None else micro_batch)

    def to_json(self) -> dict[str, Any]:
        """``{"subset": {...}, "micro_batch": n}``."""
        return {"subset": self.subset.to_json(), "micro_batch": self.micro_batch}

    @classmethod
    def from_json(cls, layout: Layout, data: Any) -> Plan:
        """
        Parse what :meth:`to_json` gives, or its text.

        Raises:
            ExportError: if ``data`` is not a plan.
            LayoutError: if its subset does not fit ``layout``.

        """
        try:
            data = json.loads(data) if isinstance(data, str | bytes) else data
            micro_batch = data["micro_batch"]
            subset = data["subset"]
        except (KeyError, TypeError, ValueError) as error:
            raise ExportError(f"not a plan: {type(error).__name__}: {error}") from error
        if not isinstance(micro_batch, int) or isinstance(micro_batch, bool):
            raise ExportError(f"not a plan: the micro-batch is {micro_batch!r}")
        return cls(Subset.from_json(layout, subset), micro_batch)
