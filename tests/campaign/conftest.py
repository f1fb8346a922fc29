"""For all tests of federations."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def numbers_that_are_none() -> Iterator[None]:
    """Devices that lie pack values that are no numbers, of which numpy warns."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=RuntimeWarning)
        yield
