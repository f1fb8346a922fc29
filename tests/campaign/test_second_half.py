"""The second half of the federations of every test run."""

from __future__ import annotations

import pytest

from .sweep import SEEDS, in_tens, sweep


@pytest.mark.parametrize("seeds", in_tens(SEEDS // 2, SEEDS), ids=str)
def test_whole_federations_keep_every_promise_under_faults(seeds: range) -> None:
    sweep(seeds)
