"""
How much the tests notice: change one thing, run the unit tests of that room, and see whether any fails.

The changes are those of cosmic-ray (operators, comparisons, numbers, conditions, loops, decorators), and statements
that only call something, left out: a sync or a close that is missing shows only after a fault. A sample is drawn with a
fixed seed, so that a run ends and another finds the same.

Everything happens in a copy of the repository. Each change runs in a process forked from one that has imported the
other packages already: most of a short test run is imports.

    python scripts/mutants.py --sample 20 --room coordinator/store --least 0.9

Needs Linux or macOS (fork).
"""

from __future__ import annotations

import argparse
import ast
import compileall
import contextlib
import dataclasses
import difflib
import importlib
import json
import os
import py_compile
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from cosmic_ray.ast import ast_nodes, get_ast_from_path
from cosmic_ray.mutating import mutate_code
from cosmic_ray.operators.operator import Operator
from cosmic_ray.plugins import get_operator, operator_names

ROOT = Path(__file__).resolve().parent.parent

# Each room, and those of its tests that start processes of their own or take minutes: they are not run here.
ROOMS: dict[str, tuple[str, ...]] = {
    "coordinator/merge": (),
    "coordinator/updates": (),
    "coordinator/scheduling": (),
    "coordinator/sessions": (),
    "coordinator/store": ("test_kills.py", "test_backup.py"),
    "mobile_sdk/protocol": (),
    "mobile_sdk/payload": (),
}
COPIED = ("coordinator", "exporters", "mobile_sdk", "tests", "examples", "scenarios", "docs", "pyproject.toml")

# Changes that say nothing: `is` for `==`, and operators for which there is no reason to expect another one there.
_SKIPPED = ("Is_", "_Is", "IsNot", "MatMul", "Mod", "Pow", "Shift", "BitXor", "VariableInserter", "Unary")


class CallLeftOut(Operator):
    """A statement that only calls something becomes ``pass``."""

    def mutation_positions(self, node):  # type: ignore[no-untyped-def]
        if node.type == "expr_stmt" or node.parent is None or node.parent.type != "simple_stmt":
            return
        called = node.type in ("atom_expr", "power", "await_expr") and node.children[-1].type == "trailer"
        if called and node.children[-1].children[0].value == "(":
            yield node.start_pos, node.end_pos

    def mutate(self, node, index):  # type: ignore[no-untyped-def]
        import parso

        left = parso.parse("pass").children[0]
        left.prefix = node.get_first_leaf().prefix
        return left

    @classmethod
    def examples(cls):  # type: ignore[no-untyped-def]
        return ()


@dataclasses.dataclass(frozen=True)
class Mutant:
    """One change of one file."""

    room: str
    path: str
    operator: str
    occurrence: int
    line: int


def operators() -> dict[str, Operator]:
    """Every operator that is used, by name."""
    found: dict[str, Operator] = {"CallLeftOut": CallLeftOut()}
    for name in sorted(operator_names()):
        cls = get_operator(name)
        if not cls.arguments() and not any(part in name for part in _SKIPPED):
            found[name.rpartition("/")[2]] = cls()
    return found


def mutants_of(room: str, path: Path, known: dict[str, Operator]) -> Iterator[Mutant]:
    """Every change of a file, without those of what never runs."""
    quiet = _quiet_lines(path.read_text())
    nodes = list(ast_nodes(get_ast_from_path(path)))
    for name, operator in known.items():
        positions = (start for node in nodes for start, _ in operator.mutation_positions(node))
        for occurrence, (line, _) in enumerate(positions):
            if line not in quiet:
                yield Mutant(room, str(path.relative_to(ROOT)), name, occurrence, line)


def _quiet_lines(source: str) -> set[int]:
    """Lines of annotations, imports and ``__all__``, which no test can notice, and of protocols' bodies."""
    lines: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        inside: list[ast.AST | None] = []
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                # From `def` to where the body begins: defaults are changed elsewhere often enough.
                lines.update(range(node.lineno, node.body[0].lineno if len(node.body) > 0 else node.lineno))
                lines.discard(node.body[0].lineno)
            case ast.AnnAssign() if node.value is None or isinstance(node.value, ast.Constant):
                inside = [node.annotation]
            case ast.Import() | ast.ImportFrom():
                inside = [node]
            case ast.Assign() if any(isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets):
                inside = [node]
            case ast.ClassDef() if any("Protocol" in ast.unparse(base) for base in node.bases):
                inside = [node]
            case ast.Expr(value=ast.Call(func=ast.Attribute(value=ast.Name(id="log")))):
                inside = [node]  # what is logged is for people
            case ast.Expr(value=ast.Call(func=ast.Name(id="step"))):
                inside = [node]  # the name of a place where tests of another kind end the process
        for part in inside:
            if part is not None and hasattr(part, "lineno"):
                lines.update(range(part.lineno, (part.end_lineno or part.lineno) + 1))
    return lines


def sample(count: int, seed: int, rooms: Sequence[str]) -> list[Mutant]:
    """So many changes of each room: lines are drawn first, then one of a line's changes."""
    known = operators()
    chosen: list[Mutant] = []
    for room in rooms:
        by_line: dict[tuple[str, int], list[Mutant]] = {}
        for path in sorted((ROOT / room).rglob("*.py")):
            for mutant in mutants_of(room, path, known):
                by_line.setdefault((mutant.path, mutant.line), []).append(mutant)
        rng = random.Random(f"{seed} {room}")
        lines = rng.sample(sorted(by_line), min(count, len(by_line)))
        chosen += [rng.choice(by_line[line]) for line in sorted(lines)]
    return chosen


def copy_tree(target: Path) -> None:
    """What the tests need, with bytecode that is checked by the source's hash, not by its time."""
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=shutil.ignore_patterns("__pycache__", "build", "*.egg-info"))
        elif source.exists():
            shutil.copy(source, target / name)
    for name in ("coordinator", "exporters", "mobile_sdk"):
        mode = py_compile.PycInvalidationMode.CHECKED_HASH
        compileall.compile_dir(target / name, quiet=2, invalidation_mode=mode)


def run_tests(folder: Path, room: str, first: str, timeout: float, log: Path) -> str:
    """In a forked process: ``passed``, ``failed`` or ``timeout``."""
    child = os.fork()
    if child == 0:
        os.setsid()
        _child(folder, room, first, log)
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return "passed" if os.waitstatus_to_exitcode(status) == 0 else "failed"
        time.sleep(0.02)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "timeout"


def _child(folder: Path, room: str, first: str, log: Path) -> None:
    code = 1
    try:
        with log.open("wb") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        os.chdir(folder)
        sys.path.insert(0, str(folder))
        sys.dont_write_bytecode = (folder / "baseline").exists()
        os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
        import pytest
        from hypothesis import HealthCheck, settings

        # A busy machine is no change that was noticed, and a second run finds what the first did.
        patient = {"deadline": None, "suppress_health_check": list(HealthCheck), "derandomize": True, "database": None}
        settings.register_profile("mutants", **patient)
        settings.load_profile("mutants")
        tests = f"tests/{room}"
        ignored = [f"--ignore={tests}/{name}" for name in ROOMS[room]]
        mirror = sorted(str(path.relative_to(folder)) for path in (folder / tests).rglob(f"test_{first}.py"))
        options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--show-capture=no", "-W", "ignore"]
        # With many random examples a change is found sooner or later; with few, a test that is no test shows.
        code = 0
        for part in ([*mirror], [tests]):
            if code == 0 and part:
                code = int(pytest.main([*options, *ignored, *part]))
        modules = sorted(name for name in sys.modules if name.partition(".")[0] not in _OURS)
        (folder / "modules.json").write_text(json.dumps(modules))
    finally:
        os._exit(code)


_OURS = ("coordinator", "exporters", "mobile_sdk", "tests", "conftest", "__main__", "__mp_main__")


def preload(folder: Path) -> None:
    """Import what the tests import of others' packages, once for all that are forked."""
    for name in json.loads((folder / "modules.json").read_text()):
        if not name.startswith(("_pytest.", "pluggy", "importlib")) and name not in sys.modules:
            with contextlib.suppress(BaseException):
                importlib.import_module(name)


def judge(mutants: Sequence[Mutant], say: Callable[[str], None]) -> list[tuple[Mutant, str, str]]:
    """Each change with what came of it and its difference."""
    known = operators()
    results = []
    with tempfile.TemporaryDirectory(prefix="mutants-") as name:
        folder = Path(name)
        log = folder / "log.txt"
        copy_tree(folder)
        usual: dict[str, float] = {}
        for room in dict.fromkeys(mutant.room for mutant in mutants):
            for _ in range(2):  # the second time without the first one's imports
                began = time.monotonic()
                if run_tests(folder, room, "nothing", 900.0, log) != "passed":
                    sys.exit(f"the tests of {room} fail without any change:\n{log.read_text()[-3000:]}")
                usual[room] = time.monotonic() - began
                preload(folder)
            (folder / "baseline").touch()
            say(f"{room}: its tests take {usual[room]:.1f} s")
            for mutant in (m for m in mutants if m.room == room):
                path = folder / mutant.path
                source = path.read_text()
                changed = mutate_code(source, known[mutant.operator], mutant.occurrence)
                if changed is None or changed == source:
                    continue
                path.write_text(changed)
                outcome = run_tests(folder, room, path.stem, 20.0 + 5 * usual[room], log)
                path.write_text(source)
                lines = difflib.unified_diff(source.splitlines(), changed.splitlines(), lineterm="", n=0)
                difference = "\n".join(line for line in list(lines)[3:])
                results.append((mutant, outcome, difference))
                if outcome == "passed":
                    say(f"NOT NOTICED {mutant.path}:{mutant.line} {mutant.operator}\n{difference}")
            (folder / "baseline").unlink()
    return results


def main() -> int:
    parser = argparse.ArgumentParser(description="How many changes of the code the unit tests notice.")
    parser.add_argument("--sample", type=int, default=25, metavar="N", help="changes per room (default: 25)")
    parser.add_argument("--seed", type=int, default=0, help="of the sample (default: 0)")
    parser.add_argument("--room", action="append", choices=list(ROOMS), help="only these; default: all")
    parser.add_argument("--least", type=float, default=0.9, metavar="SHARE", help="share to be noticed (default: 0.9)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="every change and its outcome as JSON")
    parser.add_argument("--list", action="store_true", help="print the sample and end")
    options = parser.parse_args()
    mutants = sample(options.sample, options.seed, options.room or list(ROOMS))
    if options.list:
        for mutant in mutants:
            print(f"{mutant.path}:{mutant.line} {mutant.operator}")
        return 0
    results = judge(mutants, lambda text: print(text, flush=True))
    if options.out is not None:
        rows = [{**dataclasses.asdict(m), "outcome": outcome, "difference": text} for m, outcome, text in results]
        options.out.write_text(json.dumps(rows, indent=1) + "\n")
    for room in dict.fromkeys(mutant.room for mutant, _, _ in results):
        outcomes = [outcome for mutant, outcome, _ in results if mutant.room == room]
        noticed = sum(outcome != "passed" for outcome in outcomes)
        print(f"{room:24} {noticed:3} of {len(outcomes):3} noticed ({noticed / len(outcomes):.0%})")
    share = sum(outcome != "passed" for _, outcome, _ in results) / max(len(results), 1)
    print(f"{'all':24} {share:.1%} of {len(results)} noticed; at least {options.least:.0%} is wanted")
    return 0 if share >= options.least else 1


if __name__ == "__main__":
    sys.exit(main())
