"""Two machines and a real PostgreSQL server: every promise holds, whoever leads the run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ..postgres_server import open_server
from . import planted
from .federation import run
from .hunt import hunt
from .plan import draw
from .sweep import words

SEEDS = 60

pytestmark = [pytest.mark.full, pytest.mark.filterwarnings("ignore::RuntimeWarning")]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with open_server() as server:
        yield server.address()


@pytest.mark.parametrize("first", range(0, SEEDS, 10))
def test_federations_in_a_database_keep_every_promise_under_faults(first: int, address: str) -> None:
    for seed in range(first, first + 10):
        outcome = run(draw(seed, database=True), address)
        assert not outcome.problems, f"python -m tests.campaign --seeds {seed} --database --trace\n{words(outcome)}"
        assert outcome.counts["starts checked"] >= 2


@pytest.mark.parametrize("name", planted.names("database"))
def test_faults_that_are_planted_between_a_leader_and_its_database_are_found(name: str, address: str) -> None:
    assert hunt(name, address).problems
