"""``[scheduling]`` and ``[limits]``: who gets work, and what one device may ask for."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from .section import Section, Size

__all__ = ["LimitsSection", "SchedulingSection"]


class SchedulingSection(Section):
    """
    Who gets work.

    ``concurrency``: the most devices that train at once (0: all that ask). ``auto`` makes that between 1 and 10 times
    ``merge.least``: as many as keep merges stable (:mod:`coordinator.updates.buffer_size`), and no more than a third of
    those that are there, so that a queue gives slow devices their share; but 10 at the least. ``waiting``: the most
    that wait connected for their turn; further devices are told to come back after ``retry_seconds`` or later. A task
    whose update has not arrived within ``deadline_seconds``, or whose device has been offline for
    ``liveness_seconds``, is given to another device. ``repeat`` lets a device train the same version again.
    ``cohort``: the most devices that train one version (0: no limit). ``cohort = merge.buffer`` gives synchronous
    rounds; a larger cohort over-selects. ``coverage``: weights that fewer running tasks train go first.
    """

    concurrency: Annotated[int, Field(ge=0)] | Literal["auto"] = "auto"
    waiting: Annotated[int, Field(ge=0)] = 1_000
    retry_seconds: Annotated[float, Field(gt=0)] = 30.0
    deadline_seconds: Annotated[float, Field(gt=0)] = 1_800.0
    liveness_seconds: Annotated[float, Field(gt=0)] = 300.0
    repeat: bool = True
    cohort: Annotated[int, Field(ge=0)] = 0
    coverage: Annotated[int, Field(ge=0)] = 1


class LimitsSection(Section):
    """
    What one device may ask of the coordinator.

    ``bytes_per_day`` counts both directions; a device beyond it is sent away until it is a day older.
    ``messages_per_second`` is an average, of which a few seconds' worth may come at once.
    """

    bytes_per_day: Size | None = None
    messages_per_second: Annotated[float, Field(gt=0)] = 500.0
