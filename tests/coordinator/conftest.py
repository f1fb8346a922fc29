"""What holds for the coordinator's tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .small_run import OPENED


@pytest.fixture(autouse=True)
def no_store_stays_open() -> Iterator[None]:
    """A store that is left to the garbage keeps its lock for as long as that lies there."""
    yield
    while OPENED:
        OPENED.pop().close()
