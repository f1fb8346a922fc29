"""``[planning]``: what devices train within their budgets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from .section import Section

__all__ = ["PlanningSection"]


class PlanningSection(Section):
    """
    What devices train within their budgets; see docs/how-to/plan.md.

    ``mode``: ``nested`` gives every budget a plan of its own, each inside the next; ``common`` gives all devices the
    plan of the smallest. ``selector`` ranks layers, on the samples that ``data`` gives (``module:callable``) or on the
    task's own. ``shrink``: whether a smaller micro-batch is taken where that lets a budget train more; it slows a step.
    ``plans``: a folder that ``ftte plan`` wrote, instead of a search when the run begins. ``bake``: whether
    convolutions that no plan trains are inside the programs, where that takes less memory; see
    docs/explanation/lowering.md.
    ``frozen_bits``: weights that no plan trains are rounded to ``2**frozen_bits`` steps to the largest of a channel
    before the run begins, and travel in about so many bits each.
    """

    mode: Literal["nested", "common"] = "nested"
    selector: Literal["contribution", "fisher", "magnitude", "sensitivity", "last-layers", "random"] | None = None
    shrink: bool = True
    data: Annotated[str, Field(pattern=r"^([\w.]+:\w+)?$")] = ""
    seed: int = 0
    plans: Path | None = None
    bake: bool = False
    frozen_bits: Annotated[int, Field(ge=3, le=12)] | None = None

    @model_validator(mode="after")
    def _searched_or_given(self) -> PlanningSection:
        if self.plans is not None and self.model_fields_set & {"selector", "data", "shrink"}:
            raise ValueError(
                "plans were searched with selector, data and shrink already: leave those out, or leave plans out"
            )
        return self
