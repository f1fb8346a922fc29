"""
``python -m tests.sanitizers --programs N``: what the native runtime makes of N damaged programs.

The runtime's own sources are compiled with AddressSanitizer and UndefinedBehaviourSanitizer; ExecuTorch's libraries are
those of the wheel. The command fails where a sanitizer finds a fault in our sources, or where ExecuTorch ends the
process by ``abort``. Faults inside ExecuTorch are counted: no caller can prevent them, and a device runs no program
whose signature is not the run's.
"""

from __future__ import annotations

import argparse
import collections
import sys
import tempfile
from pathlib import Path

from .sanitized import build, run


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.sanitizers", description=__doc__.splitlines()[2])
    parser.add_argument("--programs", type=int, default=1000, help="damaged programs per sound one (default: 1000)")
    parser.add_argument("--first", type=int, default=0, help="number of the first (default: 0)")
    parser.add_argument("--keep", type=Path, help="keep programs that fault, and what was said of them, in this folder")
    options = parser.parse_args()
    from .sound import programs

    with tempfile.TemporaryDirectory(prefix="ftte-sanitizers-") as folder:
        harness = build(Path(folder))
        ours = []
        for name, content in programs().items():
            ends = run(harness, content, range(options.first, options.first + options.programs), Path(folder))
            print(f"{name}: {len(content):,} bytes")
            for kind, counts in sorted(ends.by_kind().items()):
                print(f"  {kind:10}", "  ".join(f"{end} {count}" for end, count in sorted(counts.items())))
            places = collections.Counter(fault.place for fault in ends.faults)
            for place, count in places.most_common(12):
                print(f"  {count:4}  {place}")
            ours += [fault for fault in ends.faults if fault.ours]
            if options.keep is not None:
                options.keep.mkdir(parents=True, exist_ok=True)
                for fault in ends.faults:
                    (options.keep / f"{name}-{fault.number}.pte").write_bytes(fault.content)
                    (options.keep / f"{name}-{fault.number}.log").write_text(fault.said)
    for fault in ours:
        print(f"a fault of ours, program {fault.number}: {fault.place}\n{fault.said[:3000]}", file=sys.stderr)
    return 1 if ours else 0


if __name__ == "__main__":
    sys.exit(main())
