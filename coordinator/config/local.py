"""``[local]``: the devices of `ftte run`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from .section import Section

__all__ = ["LocalSection"]


class LocalSection(Section):
    """
    What `ftte run` starts on this machine, beside the coordinator.

    Each of ``devices`` has the samples that ``data`` gives: ``package.module:function(arguments)``, in which
    ``{index}`` stands for the device's number from 0 and ``{devices}`` for how many there are. Their budgets are those
    of ``[budgets]``, in turn.
    """

    devices: Annotated[int, Field(ge=1, le=64)] = 4
    data: Annotated[str, Field(pattern=r"^([\w.]+:\w+.*)?$")] = ""
