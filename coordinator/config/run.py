"""``[run]``, ``[store]``, ``[stop]`` and ``[retention]``: which run, where and how long it is kept, when it ends."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr, model_validator

from .section import Section

__all__ = ["RetentionSection", "RunSection", "StopSection", "StoreSection"]


class RunSection(Section):
    """Which run, of which task, and where it is kept; with ``hold`` it gives out no work until it is started."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    task: Annotated[str, Field(pattern=r"^[\w.]+:\w+$")]
    state: Path = Path("state")
    hold: bool = False


class StoreSection(Section):
    """
    Where a run's state is kept: in the state directory, unless ``postgres`` names a database.

    ``objects``: where artifacts and large updates are, ``s3://bucket/prefix`` or a folder; without it, in the state
    directory. Either may be ``$NAME``: the value is that of the environment variable ``NAME``.
    """

    postgres: SecretStr | None = None
    objects: str | None = None

    @model_validator(mode="after")
    def _objects_of_a_database(self) -> StoreSection:
        if self.objects is not None and self.postgres is None:
            raise ValueError('objects is for runs in a database: give postgres = "postgresql://..." as well')
        return self


class StopSection(Section):
    """
    When the run has ended; without a limit it goes on until it is stopped.

    ``goal`` is a value of ``evaluation.metric``, reached from above where that is minimised. ``updates`` counts merged
    ones.
    """

    goal: float | None = None
    accuracy: Annotated[float, Field(gt=0, le=1)] | None = None
    versions: Annotated[int, Field(ge=1)] | None = None
    updates: Annotated[int, Field(ge=1)] | None = None
    seconds: Annotated[float, Field(gt=0)] | None = None


class RetentionSection(Section):
    """
    Which versions keep their files: the newest, the best, and those that a device was given in the last days.

    Of the others the record stays, so the history is whole; but there is no way back to them.
    """

    versions: Annotated[int, Field(ge=1)] = 20
    held_days: Annotated[float, Field(ge=0)] = 1.0
