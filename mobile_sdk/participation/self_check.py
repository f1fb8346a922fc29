"""A program's self-check: once per program and build of the runtime, before anything is trained or predicted."""

from __future__ import annotations

import json
from pathlib import Path

from ..durable_files import write_durably
from ..engines import self_check
from ..engines.base import Engine
from ..errors import ProgramRejected, SelfCheckFailed

__all__ = ["check_once"]

RESULT_FILE = "self-check.json"
# A check that a wrong runtime ends together with the process cannot say so. One end may have been anyone's.
_ATTEMPTS = 2


def check_once(engine: Engine, folder: Path) -> None:
    """
    Run the program's self-check, unless this build of the runtime has passed it.

    Args:
        engine: the program of ``folder``; one that stands for no runtime is not checked.
        folder: the program's, where it is kept that the check was passed.

    Raises:
        SelfCheckFailed: if the runtime computes wrong numbers, or the check has ended the process more than once.
        ProgramRejected: if the program has no self-check.

    """
    if not engine.runtime:
        return
    if engine.manifest.check is None:
        raise ProgramRejected(
            "the program cannot check itself on this device: it was exported by an earlier version; export it anew"
        )
    path = folder / RESULT_FILE
    passed, attempts = _read(path, engine.runtime)
    if passed:
        return
    if attempts >= _ATTEMPTS:
        raise SelfCheckFailed(
            f"this device's runtime ({engine.runtime}) ended the process each time that the program's self-check ran: "
            "nothing is trained or predicted with it; update the app, or use the engine 'interpreted'"
        )
    _write(path, engine.runtime, passed=False, attempts=attempts + 1)
    try:
        self_check.run(engine, folder)
    except Exception:
        path.unlink()  # it ended with words, not with the process
        raise
    _write(path, engine.runtime, passed=True, attempts=0)


def _read(path: Path, runtime: str) -> tuple[bool, int]:
    """Whether ``runtime`` has passed, and how many checks of it began and never ended."""
    try:
        kept = json.loads(path.read_bytes())
        return (bool(kept["passed"]), int(kept["attempts"])) if kept["runtime"] == runtime else (False, 0)
    except (OSError, ValueError, KeyError, TypeError):  # there is none, or it is damaged: check again
        return False, 0


def _write(path: Path, runtime: str, *, passed: bool, attempts: int) -> None:
    write_durably(path, json.dumps({"runtime": runtime, "passed": passed, "attempts": attempts}).encode())
