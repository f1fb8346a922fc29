"""The campaign itself: repeatable, finds what is planted, and finds nothing in the product."""

from __future__ import annotations

import subprocess
import sys

import pytest

from . import planted
from .federation import run
from .hunt import hunt
from .plan import draw
from .shrink import shrink
from .sweep import words

# What seeds beyond those of every test run have found: a backup that was restored twice, a segment whose folder's sync
# failed, a part that a power cut brought back, words of a refusal and a program's signature that a link had garbled, a
# full disk of a device that was refused.
FOUND = (3026, 6019, 6511, 10068, 31218, 102235, 209323)

# With gateways: those of every test run, and what they have found: a gateway that asked while its conductor ended, and
# waited for ever; threads of a gateway that wait for one another.
GATEWAY_SEEDS = (0, 1, 3, 4, 5)
FOUND_AT_GATEWAYS = (2, 69)

FAULTS = planted.names("", "gateways")


@pytest.mark.parametrize("seed", FOUND)
def test_seeds_that_have_found_something_find_it_no_more(seed: int) -> None:
    outcome = run(draw(seed))
    assert not outcome.problems, words(outcome)


@pytest.mark.parametrize("seed", [*GATEWAY_SEEDS, *FOUND_AT_GATEWAYS])
def test_federations_behind_gateways_keep_every_promise_under_faults(seed: int) -> None:
    outcome = run(draw(seed, gateways=True))
    assert not outcome.problems, f"python -m tests.campaign --seeds {seed} --gateways --trace\n{words(outcome)}"
    assert outcome.plan.gateways


def test_the_same_seed_gives_the_same_trace_in_every_process() -> None:
    first, second = (
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", PROGRAM, *before],
            env={"PYTHONHASHSEED": seed, "PATH": ""},
            check=True,
            capture_output=True,
            text=True,
        ).stdout.splitlines()
        for seed, before in (("1", ()), ("2", ("6", "11")))
    )
    assert first == second, "whatever hashes are, and whichever federations the process has run before"


def trace(seed: int, *, gateways: bool = False) -> list[str]:
    """What the hash of a trace is made of: all but lines of the log, of which a process leaves out repeated ones."""
    return [line for line in run(draw(seed, gateways=gateways)).trace if line[10:15] != "  log"]


PROGRAM = """
import sys
from tests.campaign.test_campaign import trace
for seed in sys.argv[1:]:
    trace(int(seed))
print("\\n".join([*trace(3), *trace(1, gateways=True)]))
"""


def test_two_seeds_differ() -> None:
    assert draw(3) != draw(4)
    assert run(draw(3)).digest != run(draw(4)).digest


@pytest.mark.parametrize("name", planted.names())
def test_planted_faults_fit_the_source(name: str) -> None:
    with planted.planted(name):
        pass


@pytest.mark.full
@pytest.mark.parametrize("name", FAULTS)
def test_planted_faults_are_found(name: str) -> None:
    assert hunt(name).problems


def test_a_failing_schedule_is_shrunk_to_what_it_takes() -> None:
    name = "commits-not-synced"
    outcome = hunt(name)
    broken = outcome.problems[0].invariant
    with planted.planted(name):
        left_out, shorter = shrink(outcome.plan, broken, run, most=5)
    assert any(problem.invariant == broken for problem in shorter.problems)
    assert len(shorter.plan.faults) + len(left_out) == len(outcome.plan.faults)
