"""
``python -m tests.fuzz TARGET --runs N``: fuzz one target, or ``all`` in turn.

Inputs that reach new code are kept in ``build/fuzz/TARGET``, from where the next run goes on. An input that crashes is
written to ``build/fuzz/crash-*``: mend what it found, and move it to ``tests/fuzz/corpus/TARGET``, where a test
replays it.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

WORK = Path("build") / "fuzz"
INSTALL = "pip install 'ftte[fuzz]'"


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Fuzz what parses a peer's bytes.")
    parser.add_argument("target", help="one of them, `all`, or `list`")
    parser.add_argument("--runs", type=int, default=100_000, help="executions (default: 100,000)")
    parser.add_argument("--seconds", type=int, default=0, help="stop after so long (default: no limit)")
    parser.add_argument("--seed", type=int, default=1, help="of the fuzzer's draws (default: 1)")
    parser.add_argument("--write-seeds", action="store_true", help="write the targets' seeds into their corpora")
    options = parser.parse_args()
    try:
        import atheris
    except ImportError:
        print(
            f"python -m tests.fuzz needs atheris, which has wheels for Linux on x86-64 alone: {INSTALL}",
            file=sys.stderr,
        )
        return 2
    if options.target == "all":
        return _all(options)
    with atheris.instrument_imports(include=["mobile_sdk", "coordinator"]):
        from .targets import TARGETS
    from .target import execute, refuse_warnings

    if options.target == "list" or options.write_seeds:
        for target in TARGETS.values():
            if options.write_seeds:
                target.corpus.mkdir(parents=True, exist_ok=True)
                for name, data in target.seeds().items():
                    (target.corpus / f"seed-{name}").write_bytes(data)
            print(f"{target.name:12} {target.megabytes:4} MB  up to {target.length} bytes")
        return 0
    if options.target not in TARGETS:
        print(f"there is no target {options.target!r}: there are {', '.join(TARGETS)}", file=sys.stderr)
        return 2
    target = TARGETS[options.target]
    folder = WORK / target.name
    folder.mkdir(parents=True, exist_ok=True)
    words = WORK / f"{target.name}.dict"
    words.write_text("".join(f'"{_escaped(word)}"\n' for word in target.words))
    flags = [
        f"-runs={options.runs}",
        f"-seed={options.seed}",
        f"-max_len={target.length}",
        *([f"-dict={words}"] if target.words else []),
        f"-artifact_prefix={WORK}/",
        "-timeout=60",  # of the clock: an endless loop; Hang measures the processor's time
        "-rss_limit_mb=2048",
        "-print_final_stats=1",
        "-reload=0",
        "-len_control=20",
        *([f"-max_total_time={options.seconds}"] if options.seconds else []),
    ]
    target.prepare()
    refuse_warnings()
    atheris.Setup(
        [sys.argv[0], *flags, str(folder), str(target.corpus)],
        lambda data: execute(target, data),
        internal_libfuzzer=True,
    )
    atheris.Fuzz()
    return 0


def _all(options: argparse.Namespace) -> int:
    """Every target in a process of its own; the fuzzer ends its process."""
    from .targets import TARGETS

    failed = []
    for name in TARGETS:
        print(f"== {name}", flush=True)
        command = [sys.executable, "-m", "tests.fuzz", name, f"--runs={options.runs}", f"--seconds={options.seconds}"]
        if subprocess.run([*command, f"--seed={options.seed}"], check=False).returncode:
            failed.append(name)
    print(f"failed: {', '.join(failed)}" if failed else "no target failed")
    return 1 if failed else 0


def _escaped(word: bytes) -> str:
    return "".join(chr(b) if 32 <= b < 127 and b not in b'"\\' else f"\\x{b:02x}" for b in word)


if __name__ == "__main__":
    sys.exit(main())
