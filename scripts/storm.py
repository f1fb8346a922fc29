"""
A whole service under kills and stops: ``python scripts/storm.py --faults 1000``.

PostgreSQL, two conductors, three gateways and four devices as processes. Any of them is killed (SIGKILL, ``pg_ctl -m
immediate``) or stopped for a while (SIGSTOP), at random, under load. Then the faults stop, and database and logs are
checked as by ``scripts/chaos.py``.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from scripts.chaos_parts.plan import plan_run  # noqa: E402
from scripts.chaos_parts.storm import Storm  # noqa: E402
from tests.postgres_server import open_server  # noqa: E402


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="scripts/storm.py", description="A whole service under kills and stops.")
    parser.add_argument("--faults", type=int, default=1000, help="how many (default: 1000)")
    parser.add_argument("--minutes", type=float, default=120.0, help="the longest that faults go on (default: 120)")
    parser.add_argument("--seed", type=int, help="of the faults (default: a new one)")
    parser.add_argument("--planned", type=Path, help="state directory of a run that has begun, to start from a copy")
    parser.add_argument("--keep", type=Path, help="an empty folder for logs and storages (default: a temporary one)")
    options = parser.parse_args(arguments)
    seed = random.SystemRandom().randrange(10**6) if options.seed is None else options.seed
    with contextlib.ExitStack() as stack:
        if options.keep is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ftte-storm-")))
        else:
            folder = options.keep.absolute()
            folder.mkdir(parents=True, exist_ok=True)
        planned = options.planned or plan_run(folder / "planned")
        server = stack.enter_context(open_server())
        try:
            storm = Storm(folder, seed, planned, server)
            report = asyncio.run(storm.run(options.faults, 60 * options.minutes))
        except AssertionError as error:
            print(f"FAILED: {error}", flush=True)
            return 1
        return report.show()


if __name__ == "__main__":
    sys.exit(main())
