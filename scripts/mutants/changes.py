"""
What is changed, one thing at a time, and what is not.

The changes are those of cosmic-ray (operators, comparisons, numbers, conditions, loops, decorators), and statements
that only call something, left out: a sync or a close that is missing shows only after a fault. A sample is drawn with a
fixed seed, so that a run ends and another finds the same.

Not drawn, since no test could notice it:

- annotations, aliases of types, imports, ``__all__``, bodies of protocols, what stands under ``if TYPE_CHECKING``;
- decorators and arguments of dataclasses that only a type checker reads, such as ``override`` and ``frozen=True``;
- what is logged, and the names of crash points, at which tests of another kind end the process;
- ``*`` and ``/`` among the parameters of a function, which a type checker sees to;
- what decides of speed alone: sizes of ``lru_cache``, levels of ``zlib``, and constants marked ``# pragma: no mutate``,
  such as how many elements are worked on at a time;
- lines that are marked ``# pragma: no cover``;
- arithmetic in place of operators on bits and the other way around: most of these are no programs any more, and would
  be noticed by whatever runs the line.
"""

from __future__ import annotations

import ast
import dataclasses
import random
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import parso
from cosmic_ray.ast import ast_nodes, get_ast_from_path
from cosmic_ray.mutating import mutate_code
from cosmic_ray.operators.operator import Operator
from cosmic_ray.plugins import get_operator, operator_names

ROOT = Path(__file__).resolve().parent.parent.parent

_ARITHMETIC = ("Add", "Sub", "Mul", "Div", "FloorDiv")
_BITS = ("BitOr", "BitAnd", "LShift", "RShift")
_COMPARISONS = ("Eq", "NotEq", "Lt", "LtE", "Gt", "GtE")
_OTHERS = (
    "AddNot",
    "ExceptionReplacer",
    "NumberReplacer",
    "RemoveDecorator",
    "ReplaceAndWithOr",
    "ReplaceBreakWithContinue",
    "ReplaceContinueWithBreak",
    "ReplaceFalseWithTrue",
    "ReplaceOrWithAnd",
    "ReplaceTrueWithFalse",
    "ZeroIterationForLoop",
)

# Decorators that change nothing at run time, and arguments of ``dataclass`` that a type checker sees to.
_FOR_TYPES = ("abstractmethod", "final", "overload", "override", "runtime_checkable")
_OF_DATACLASSES = ("frozen", "slots", "kw_only", "repr", "eq")

Position = tuple[int, int]  # line from 1, column from 0


class CallLeftOut(Operator):
    """A statement that only calls something becomes ``pass``."""

    def mutation_positions(self, node):  # type: ignore[no-untyped-def]
        if node.type == "expr_stmt" or node.parent is None or node.parent.type != "simple_stmt":
            return
        called = node.type in ("atom_expr", "power", "await_expr") and node.children[-1].type == "trailer"
        if called and node.children[-1].children[0].value == "(":
            yield node.start_pos, node.end_pos

    def mutate(self, node, index):  # type: ignore[no-untyped-def]
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
    wanted = set(_OTHERS)
    for kind, family in (("Binary", _ARITHMETIC), ("Binary", _BITS), ("Comparison", _COMPARISONS)):
        wanted |= {f"Replace{kind}Operator_{one}_{other}" for one in family for other in family}
    found: dict[str, Operator] = {"CallLeftOut": CallLeftOut()}
    for full in sorted(operator_names()):
        name = full.rpartition("/")[2]
        if name in wanted:
            found[name] = get_operator(full)()
    return found


def changed_source(source: str, mutant: Mutant, known: dict[str, Operator]) -> str | None:
    """The file with the change; none where cosmic-ray cannot make it (it knows no dotted names of exceptions)."""
    try:
        changed: str | None = mutate_code(source, known[mutant.operator], mutant.occurrence)
    except AttributeError:
        return None
    return None if changed == source else changed


def mutants_of(room: str, path: Path, known: dict[str, Operator]) -> Iterator[Mutant]:
    """Every change of a file that a test could notice."""
    quiet = quiet_spans(path.read_text())
    nodes = list(ast_nodes(get_ast_from_path(path)))
    for name, operator in known.items():
        positions = ((node, start) for node in nodes for start, _ in operator.mutation_positions(node))
        for occurrence, (node, start) in enumerate(positions):
            in_signature = node.parent is not None and node.parent.type == "parameters"
            if not in_signature and not any(begin <= start < end for begin, end in quiet):
                yield Mutant(room, str(path.relative_to(ROOT)), name, occurrence, start[0])


def quiet_spans(source: str) -> list[tuple[Position, Position]]:
    """From where to where a change would say nothing."""
    lines = source.splitlines()
    found = [((number, 0), (number + 1, 0)) for number, text in enumerate(lines, 1) if re.search(r"# *pragma\b", text)]
    for node in ast.walk(ast.parse(source)):
        for part in _quiet_parts(node):
            begin, end = _span(part, lines)
            # A decorator begins at its sign, one column before its expression.
            found.append(((begin[0], max(begin[1] - 1, 0)), end))
    return found


def _span(node: ast.expr | ast.stmt, lines: list[str]) -> tuple[Position, Position]:
    """Columns in characters; those of ``ast`` are in bytes."""

    def characters(line: int, column: int) -> int:
        return len(lines[line - 1].encode()[:column].decode())

    end_line, end_column = node.end_lineno or node.lineno, node.end_col_offset or 0
    first = min([node, *getattr(node, "decorator_list", [])], key=lambda part: part.lineno)
    return (first.lineno, characters(first.lineno, first.col_offset)), (end_line, characters(end_line, end_column))


def _quiet_parts(node: ast.AST) -> Iterator[ast.expr | ast.stmt]:
    """Expressions and statements right below ``node`` that are not changed."""
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            if isinstance(node, ast.ClassDef):
                if any("Protocol" in ast.unparse(base) for base in node.bases):
                    yield from node.body
            elif node.returns is not None:
                yield node.returns
            yield from _quiet_decorators(node.decorator_list)
        case ast.arg(annotation=ast.expr() as annotation) | ast.AnnAssign(annotation=annotation):
            yield annotation
        case ast.Import() | ast.ImportFrom():
            yield node
        case ast.Assign(targets=[ast.Name(id="__all__")]):
            yield node
        case ast.Assign(targets=[ast.Name()], value=ast.BinOp(op=ast.BitOr()) as value):
            if all(isinstance(part, ast.BinOp | ast.BitOr | ast.Name | ast.Load) for part in ast.walk(value)):
                yield value
        case ast.If(test=ast.Name(id="TYPE_CHECKING")):
            yield from node.body
        case ast.Expr(value=ast.Call(func=ast.Attribute(value=ast.Name(id="log" | "peers")) | ast.Name(id="step"))):
            yield node
        case ast.Expr(value=ast.Call(func=ast.Attribute(attr="_warn"))):
            yield node
        case ast.Call(func=ast.Attribute(value=ast.Name(id="functools"), attr="lru_cache")):
            yield from (*node.args, *(keyword.value for keyword in node.keywords))
        case ast.Call(func=ast.Attribute(value=ast.Name(id="zlib"), attr="compress")):
            yield from node.args[1:]
        case ast.Call(func=ast.Attribute(value=ast.Name(id="zlib"), attr="compressobj")):
            yield from node.args


def _quiet_decorators(decorators: Sequence[ast.expr]) -> Iterator[ast.expr]:
    for decorator in decorators:
        if ast.unparse(decorator).rpartition(".")[2] in _FOR_TYPES:
            yield decorator
        elif isinstance(decorator, ast.Call) and ast.unparse(decorator.func).rpartition(".")[2] == "dataclass":
            yield from (argument.value for argument in decorator.keywords if argument.arg in _OF_DATACLASSES)


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
