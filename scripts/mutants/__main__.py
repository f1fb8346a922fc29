"""``python -m scripts.mutants``: draw, judge and count."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path

from scripts.mutants.changes import sample
from scripts.mutants.judging import judge
from scripts.mutants.running import ROOMS


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.mutants", description="How many changes of the code the unit tests notice."
    )
    parser.add_argument("--sample", type=int, default=25, metavar="N", help="changes per room (default: 25)")
    parser.add_argument("--seed", type=int, default=0, help="of the sample (default: 0)")
    parser.add_argument("--room", action="append", choices=list(ROOMS), help="only these; default: all")
    parser.add_argument("--least", type=float, default=0.9, metavar="SHARE", help="share to be noticed (default: 0.9)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="every change and its outcome as JSON")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="of what each test reaches, for the next time")
    parser.add_argument("--list", action="store_true", help="print the sample and end")
    options = parser.parse_args()
    mutants = sample(options.sample, options.seed, options.room or list(ROOMS))
    if options.list:
        for mutant in mutants:
            print(f"{mutant.path}:{mutant.line} {mutant.operator}")
        return 0
    verdicts = judge(mutants, lambda text: print(text, flush=True), options.keep)
    if options.out is not None:
        options.out.write_text(json.dumps([dataclasses.asdict(verdict) for verdict in verdicts], indent=1) + "\n")
    for room in dict.fromkeys(verdict.mutant.room for verdict in verdicts):
        here = [verdict for verdict in verdicts if verdict.mutant.room == room]
        noticed = sum(verdict.outcome != "passed" for verdict in here)
        cpu = sum(verdict.cpu_seconds for verdict in here)
        print(f"{room:24} {noticed:3} of {len(here):3} noticed ({noticed / len(here):.0%}), {cpu:.0f} s of CPU")
    share = sum(verdict.outcome != "passed" for verdict in verdicts) / max(len(verdicts), 1)
    print(f"{'all':24} {share:.1%} of {len(verdicts)} noticed; at least {options.least:.0%} is wanted")
    return 0 if share >= options.least else 1


if __name__ == "__main__":
    sys.exit(main())
