"""What a public function raises by itself is in its docstring, or in that of its class."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = [
    path.relative_to(ROOT)
    for package in ("coordinator", "exporters", "mobile_sdk")
    for path in sorted((ROOT / package).rglob("*.py"))
    if "build" not in path.parts and path.name != "setup.py"
]
# Bugs, ends of a process and of an iteration: not for a caller to expect.
UNSAID = {"AssertionError", "NotImplementedError", "StopIteration", "SystemExit"}
MADE = ("__init__", "__post_init__", "__call__")

Function = ast.FunctionDef | ast.AsyncFunctionDef


def raised(node: ast.AST, caught: frozenset[str] = frozenset()) -> Iterator[str]:
    """Names of the exceptions that a body raises and does not catch itself; functions inside it are others."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef):
            continue
        if isinstance(child, ast.Raise) and child.exc is not None:
            call = child.exc.func if isinstance(child.exc, ast.Call) else child.exc
            name = ast.unparse(call).split(".")[-1]
            if name[:1].isupper() and name not in UNSAID | caught:
                yield name
        if isinstance(child, ast.Try):
            handled = {word for h in child.handlers if h.type for word in ast.unparse(h.type).strip("()").split(", ")}
            for inner in child.body:
                yield from raised(ast.Module([inner], []), caught | handled)
            for part in (*child.handlers, *child.orelse, *child.finalbody):
                yield from raised(ast.Module([part], []) if isinstance(part, ast.stmt) else part, caught)
        else:
            yield from raised(child, caught)


def public_functions(body: list[ast.stmt], around: str | None = None) -> Iterator[tuple[str, Function, str]]:
    """Name, node and docstrings of the functions that a module shows; ``around`` is the docstring of their class."""
    for node in body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from public_functions(node.body, ast.get_docstring(node) or "")
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            own = ast.get_docstring(node)
            if around is not None and node.name in MADE:
                yield node.name, node, f"{own or ''}\n{around}"
            elif own is not None and not node.name.startswith("_"):
                yield node.name, node, own


@pytest.mark.parametrize("path", FILES, ids=str)
def test_what_a_public_function_raises_is_said(path: Path) -> None:
    unsaid = [
        f"{name}: {error}"
        for name, node, said in public_functions(ast.parse((ROOT / path).read_text()).body)
        for error in sorted(set(raised(node)))
        if error not in said and "as :meth:" not in said and "Raises what :meth:" not in said
    ]
    assert unsaid == []


def test_a_raise_that_nobody_catches_is_found() -> None:
    source = """
def found(x):
    "Does nothing."
    try:
        raise KeyError("caught")
    except KeyError as error:
        raise ValueError("told") from error
"""
    ((_, node, _),) = public_functions(ast.parse(source).body)
    assert list(raised(node)) == ["ValueError"]
