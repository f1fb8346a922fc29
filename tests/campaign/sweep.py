"""Federations of every test run: their files share them, so that several processes do."""

from __future__ import annotations

import collections
from collections.abc import Iterable

from .federation import Outcome, run
from .plan import draw

__all__ = ["SEEDS", "in_tens", "sweep", "words"]

# Of the seeds that every test run goes through; `make campaign` goes on from there.
SEEDS = 300


def in_tens(first: int, last: int) -> list[range]:
    """The seeds from ``first`` up to ``last``, ten of them at a time."""
    return [range(start, start + 10) for start in range(first, last, 10)]


def sweep(seeds: Iterable[int]) -> None:
    """
    Run a federation per seed.

    Raises:
        AssertionError: if one breaks a promise, or if they saw too little happen.

    """
    seen = collections.Counter[str]()
    for seed in seeds:
        outcome = run(draw(seed))
        assert not outcome.problems, f"python -m tests.campaign --seeds {seed} --trace\n{words(outcome)}"
        assert outcome.counts["starts checked"] >= 2
        seen.update(outcome.counts)
    assert min(seen[what] for what in ("acknowledged updates", "versions", "ends", "faults")) >= 10, (
        "it sees what happens"
    )


def words(outcome: Outcome) -> str:
    """What a failed test says of a federation."""
    return "\n".join((*outcome.trace[-40:], *map(str, outcome.problems)))
