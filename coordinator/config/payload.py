"""``[payload]``: what travels."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from mobile_sdk.payload import UpdateFormat

from .section import Section

__all__ = ["PayloadSection"]


class PayloadSection(Section):
    """
    What travels; see :mod:`mobile_sdk.payload`.

    ``update`` is the dtype of updates, ``top_k`` the share of their elements that is sent (1: all). With
    ``differences`` devices get what changed since the version that they hold; published weights then lie on a grid of
    ``2**grid_bits`` steps to the largest weight of a channel, fixed when the run begins.
    """

    update: Literal["float32", "float16", "int16", "int8", "int4"] = "float32"
    top_k: Annotated[float, Field(gt=0, le=0.5)] | Literal[1] = 1
    differences: bool = True
    grid_bits: Annotated[int, Field(ge=4, le=20)] = 12

    @property
    def packing(self) -> UpdateFormat:
        """As devices get it."""
        return UpdateFormat(self.update, float(self.top_k))
