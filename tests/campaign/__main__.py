"""
Federations under faults, thousands of them: ``python -m tests.campaign --seeds 0:1000 --minutes 10``.

A failing seed prints its trace, the promise that was broken, and the command that repeats it; then its schedule is
shrunk. Ends with 1 if any seed failed.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import functools
import os
import sys
import time
from collections.abc import Callable, Iterator

from .federation import Outcome, run
from .hunt import hunt
from .plan import Plan, draw
from .planted import names, planted, world
from .shrink import shrink

__all__ = ["main"]

# Lines of a trace that are printed; all of them with --trace.
MOST_LINES = 60


def main() -> int:
    """Run the campaign."""
    options = _parse()
    first, _, last = options.seeds.partition(":")
    seeds = range(int(first), int(last) if last else int(first) + 1)
    began, counts, failed = time.monotonic(), collections.Counter[str](), []
    done = 0
    if options.planted:
        return _hunt_all()
    left_out = frozenset(int(index) for index in options.without.split(",") if index)
    plant_world = world(options.plant) if options.plant else ""
    gateways, database = (getattr(options, each) or plant_world == each for each in ("gateways", "database"))
    with planted(options.plant), _server() if database else contextlib.nullcontext("") as address:
        simulate = functools.partial(run, address=address)
        for seed in seeds:
            if options.minutes and time.monotonic() > began + 60 * options.minutes:
                break
            outcome = simulate(draw(seed, gateways=gateways, database=database).without(left_out))
            done += 1
            counts.update(outcome.counts)
            if options.trace:
                print(*outcome.plan.sections.items(), *outcome.plan.faults, *outcome.trace, sep="\n")
            if options.digest:
                print(seed, outcome.digest)
            if outcome.problems:
                failed.append(seed)
                _show(outcome, options.plant)
                if not options.keep:
                    _shrunk(outcome, options.plant, simulate)
                if options.first:
                    break
            elif done % 100 == 0:
                print(f"{done} seeds, {len(failed)} failed, {time.monotonic() - began:.0f} s", flush=True)
    seconds = time.monotonic() - began
    print(f"{done} seeds in {seconds:.0f} s, {len(failed)} failed{': ' if failed else ''}{failed or ''}")
    print(", ".join(f"{count:,} {name}" for name, count in sorted(counts.items())))
    return 1 if failed else 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.campaign", description=__doc__)
    parser.add_argument("--seeds", default="0:300", help="from and to, as in 0:300, or one seed")
    parser.add_argument("--minutes", type=float, default=0.0, help="stop after so long (0: never)")
    parser.add_argument("--gateways", action="store_true", help="devices come to gateways, which fail as well")
    parser.add_argument("--database", action="store_true", help="two machines, one of which leads, with PostgreSQL")
    parser.add_argument("--without", default="", help="places of faults to leave out, as in 0,3,4")
    parser.add_argument("--plant", default="", choices=["", *names()], help="a planted fault that is to be found")
    parser.add_argument("--planted", action="store_true", help="have every planted fault found, one after the other")
    parser.add_argument("--trace", action="store_true", help="print configuration, schedule and trace of every seed")
    parser.add_argument("--digest", action="store_true", help="print the hash of every trace")
    parser.add_argument("--first", action="store_true", help="stop at the first failure")
    parser.add_argument("--keep", action="store_true", help="do not shrink schedules of failing seeds")
    return parser.parse_args()


def _hunt_all() -> int:
    """Every planted fault that needs no database, and by which seed it is found."""
    missed = 0
    for name in names("", "gateways"):
        began = time.process_time()
        try:
            outcome = hunt(name)
            words = f"seed {outcome.plan.seed:3}  {outcome.problems[0].invariant}"
        except AssertionError as error:
            missed += 1
            words = str(error)
        print(f"{name:36} {time.process_time() - began:4.0f} s  {words}", flush=True)
    print(f"{missed} not found")
    return 1 if missed else 0


@contextlib.contextmanager
def _server() -> Iterator[str]:
    """The address of a PostgreSQL server of its own."""
    from ..postgres_server import open_server

    with open_server() as server:
        yield server.address()


def _show(outcome: Outcome, plant: str) -> None:
    print(f"seed {outcome.plan.seed} failed:")
    for line in outcome.trace[-MOST_LINES:]:
        print(f"  {line}")
    for problem in outcome.problems[:5]:
        print(f"broken: {problem}")
    print(f"repeat: {_command(outcome.plan, '', plant)}", flush=True)


def _shrunk(outcome: Outcome, plant: str, simulate: Callable[[Plan], Outcome]) -> None:
    left_out, shorter = shrink(outcome.plan, outcome.problems[0].invariant, simulate)
    print(f"{len(shorter.plan.faults)} of {len(outcome.plan.faults)} faults are enough:")
    for fault in shorter.plan.faults:
        print(f"  {fault}")
    print(f"repeat: {_command(outcome.plan, ','.join(map(str, sorted(left_out))), plant)}", flush=True)


def _command(plan: Plan, without: str, plant: str) -> str:
    extra = " --gateways" if plan.gateways else " --database" if plan.database else ""
    extra += f" --without {without}" if without else ""
    extra += f" --plant {plant}" if plant else ""
    return f"python -m tests.campaign --seeds {plan.seed} --trace --keep{extra}"


if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != "0":  # the order of sets is part of what is repeated
        os.environ["PYTHONHASHSEED"] = "0"
        os.execv(sys.executable, [sys.executable, "-m", "tests.campaign", *sys.argv[1:]])
    sys.exit(main())
