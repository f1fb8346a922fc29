"""
Which changes the tests notice.

Everything happens in a copy of the repository. Each change runs in a process forked from one that has imported the
other packages already: most of a short test run is imports. It first meets the tests that reach its line, the shortest
first, and stops at the first that fails. A survivor meets the others of the same files, which may see what another test
left in a cache or a shared fixture; or the whole room, if no test reaches it. A line that runs at import, such as that
of a constant, is reached by whatever reaches a line that names what it defines, and by files of tests that name it.
"""

from __future__ import annotations

import dataclasses
import difflib
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from scripts.mutants.changes import Mutant, changed_source, operators
from scripts.mutants.reach import Reach, Uses, defined_at_import, statement_lines
from scripts.mutants.running import Runner, copy_tree


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What came of a change: ``passed``, ``failed`` or ``timeout``, and the test that failed."""

    mutant: Mutant
    outcome: str
    noticed_by: str
    cpu_seconds: float
    difference: str


class Jury:
    """
    Believes a test that fails only if it passes without the change, after the same tests.

    One that does not depends on others, or on what was imported before: it is not run any more.
    """

    def __init__(self, runner: Runner, reach: Reach, say: Callable[[str], None]) -> None:
        self._runner = runner
        self._reach = reach
        self._say = say
        self._sound: set[tuple[str, ...]] = set()
        self._unfit: set[str] = set()

    def judge(
        self, path: Path, source: str, changed: str, first: list[str], others: list[str]
    ) -> tuple[str, str, float]:
        """The outcome, the test that failed and the seconds of CPU; ``path`` is as it was when this returns."""
        seconds = 0.0
        while True:
            fit = [test for test in first if test not in self._unfit]
            path.write_text(changed)
            try:
                outcome, failed, cpu = self._runner.judge(fit, others, self._reach, self._unfit)
            finally:
                path.write_text(source)
            seconds += cpu
            if failed not in self._reach.seconds or self._is_sound(fit, failed):
                return outcome, failed, seconds
            self._say(f"{failed} fails without any change, run by itself: it is left out")
            self._unfit.add(failed)

    def _is_sound(self, first: list[str], failed: str) -> bool:
        before = tuple(first[: first.index(failed) + 1]) if failed in first else (failed,)
        if before not in self._sound and self._runner.passes(list(before), self._reach):
            self._sound.add(before)
        return before in self._sound


def judge(mutants: Sequence[Mutant], say: Callable[[str], None], keep: Path | None = None) -> list[Verdict]:
    """
    Each change with what came of it.

    Args:
        mutants: the changes.
        say: called with lines for a reader.
        keep: a folder for what each test reaches, for the next time.

    """
    known = operators()
    verdicts = []
    with tempfile.TemporaryDirectory(prefix="mutants-") as name:
        folder = Path(name)
        copy_tree(folder)
        for room in dict.fromkeys(mutant.room for mutant in mutants):
            runner = Runner(folder, room, keep)
            uses = Uses(folder, room)
            reach = runner.reach()
            jury = Jury(runner, reach, say)
            say(f"{room}: {len(reach.seconds)} tests, {reach.cpu_seconds:.0f} s of CPU with what each reaches")
            for mutant in (m for m in mutants if m.room == room):
                path = folder / mutant.path
                source = path.read_text()
                changed = changed_source(source, mutant, known)
                if changed is None:
                    continue
                names = defined_at_import(source, mutant.line)
                if names:
                    first = reach.of(uses.lines(names))
                    files = uses.files(names)
                else:
                    first = reach.of({mutant.path: statement_lines(source, mutant.line)})
                    files = set()
                others = sorted(files | {test.partition("::")[0] for test in first}) or [f"tests/{room}"]
                outcome, failed, cpu = jury.judge(path, source, changed, first, others)
                lines = difflib.unified_diff(source.splitlines(), changed.splitlines(), lineterm="", n=0)
                difference = "\n".join(line for line in list(lines)[3:])
                verdicts.append(Verdict(mutant, outcome, failed, cpu, difference))
                if outcome == "passed":
                    tests = f"{len(first)} tests reach it" if first else "no test of its own reaches it"
                    say(f"NOT NOTICED {mutant.path}:{mutant.line} {mutant.operator}, {tests}\n{difference}")
    return verdicts
