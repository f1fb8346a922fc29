"""
Scenarios in one level of Android: ``python -m tests.android.framework.run LEVEL BUILD OUTCOMES [SCENARIO...]``.

Writes a JSON object: scenario -> empty, or what went wrong. A process of its own, since pyjnius knows one JVM.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path

from . import scenarios
from .build import DEMO, ROOT, Built
from .sandbox import Sandbox


def main(level: int, folder: Path, outcomes: Path, names: list[str]) -> None:
    """Run the scenarios, all of them if none is named, on Android's main thread."""
    built = Built(folder)
    sys.path[:0] = [str(built.python), str(ROOT), str(DEMO)]
    sys.getandroidapilevel = lambda: 26  # type: ignore[attr-defined]  # CPython's: the level that it was built for
    results: dict[str, str] = {}

    def enter() -> None:
        for name in names or list(scenarios.SCENARIOS):
            try:
                scenarios.SCENARIOS[name](level)
                results[name] = ""
            except BaseException:
                results[name] = traceback.format_exc()[:6000]  # Java's frames are many
            outcomes.write_text(json.dumps(results))

    said = Sandbox(level, built, scenarios.python_service).run(enter)
    if said:
        results["the sandbox"] = said
        outcomes.write_text(json.dumps(results))


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4:])
    os._exit(0)  # threads of Java's and the trainer's may be at work still
