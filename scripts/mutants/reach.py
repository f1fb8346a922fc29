"""Which tests reach a line, and which meet what a line defines at import."""

from __future__ import annotations

import ast
import dataclasses
import re
from collections.abc import Collection, Mapping
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class Reach:
    """Which tests run which lines of a room, and how long each takes."""

    tests: dict[str, dict[int, list[str]]]  # by path and line
    seconds: dict[str, float]
    cpu_seconds: float  # of the whole room, with what it takes to see what is reached

    def of(self, lines: Mapping[str, Collection[int]]) -> list[str]:
        """The tests that run any of these lines of these files, the shortest first."""
        found = {test for path, own in lines.items() for line in own for test in self.tests.get(path, {}).get(line, ())}
        return sorted(found, key=lambda test: (self.seconds[test], test))


def statement_lines(source: str, line: int) -> list[int]:
    """Every line of the innermost statement at ``line``, without the body of a compound one."""
    best = range(line, line + 1)
    size = None
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.stmt):
            body = getattr(node, "body", None)
            end = body[0].lineno - 1 if isinstance(body, list) and body else node.end_lineno or node.lineno
            decorators = getattr(node, "decorator_list", [])
            lines = range(min([node.lineno, *(one.lineno for one in decorators)]), max(end, node.lineno) + 1)
            if line in lines and (size is None or len(lines) < size):
                best, size = lines, len(lines)
    return list(best)


def defined_at_import(source: str, line: int) -> set[str]:
    """The names whose definition ``line`` belongs to, such as a constant; empty for a line in a function's body."""
    names: set[str] = set()
    inner: list[ast.stmt] = ast.parse(source).body
    while inner:
        here = [node for node in inner if _first_line(node) <= line <= (node.end_lineno or node.lineno)]
        inner = []
        for node in here:
            match node:
                case ast.FunctionDef() | ast.AsyncFunctionDef():
                    if line >= node.body[0].lineno:
                        return set()
                    names.add(node.name)
                case ast.ClassDef():
                    names.add(node.name)
                    inner = node.body
                case ast.Assign() | ast.AnnAssign():
                    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                    names |= {part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name)}
                case _:
                    inner = [child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt)]
    return names


def _first_line(node: ast.stmt) -> int:
    return min([node.lineno, *(one.lineno for one in getattr(node, "decorator_list", []))])


class Uses:
    """Which lines of a room, and which of its files of tests, name something."""

    def __init__(self, folder: Path, room: str) -> None:
        self._sources = {
            str(path.relative_to(folder)): path.read_text() for path in sorted((folder / room).rglob("*.py"))
        }
        tests = sorted((folder / "tests" / room).rglob("test_*.py"))
        self._tests = {str(path.relative_to(folder)): path.read_text() for path in tests}

    def lines(self, names: set[str]) -> dict[str, set[int]]:
        """By file, the lines that name any of ``names``, or what is defined by them at import in turn."""
        known = set(names)
        while True:
            word = re.compile(rf"\b({'|'.join(map(re.escape, sorted(known)))})\b")
            found = {
                path: {number for number, text in enumerate(source.splitlines(), 1) if word.search(text)}
                for path, source in self._sources.items()
            }
            constants = {
                name
                for path, numbers in found.items()
                for number in numbers
                for name in defined_at_import(self._sources[path], number)
                if name.strip("_").isupper()
            }
            if constants <= known:
                return found
            known |= constants

    def files(self, names: set[str]) -> set[str]:
        """The files of tests that name any of ``names``."""
        word = re.compile(rf"\b({'|'.join(map(re.escape, sorted(names)))})\b")
        return {path for path, source in self._tests.items() if word.search(source)}
