"""Android's members in the product's Python: missing below their level, or text without a cast."""

from __future__ import annotations

import ast

from . import Member, members

__all__ = ["faults"]


def faults(source: str) -> list[str]:
    """What is wrong with a module that calls Android through pyjnius, a sentence each."""
    tree = ast.parse(source)
    by_name: dict[str, list[Member]] = {}
    for listed in members().values():
        for member in listed:
            by_name.setdefault(member.name, []).append(member)
    found = []
    classes = _classes(tree)
    for name in sorted({name for name in classes.values() if name.startswith("android.") and name not in members()}):
        if not name.endswith("$VERSION"):
            found.append(f"{name} is in no list: add its members to members.txt")
    for function, node in _with_functions(tree):
        if isinstance(node, ast.Attribute) and node.attr in by_name:
            first = min(min(member.levels) for member in by_name[node.attr])
            if first > 26 and not _guarded(function):
                found.append(f"line {node.lineno}: {node.attr} is missing below level {first}")
        if isinstance(node, ast.Call):
            found += _text(node, by_name, classes)
    return found


def _classes(tree: ast.Module) -> dict[str, str]:
    """Variable -> the class that ``autoclass`` gave it."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None and (name := _autoclass(node.value)):
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                found[ast.unparse(target)] = name
        elif name := _autoclass(node):
            found.setdefault(ast.unparse(node), name)  # called or asked at once
    return found


def _autoclass(node: ast.AST) -> str:
    if isinstance(node, ast.Call) and ast.unparse(node.func) == "autoclass" and isinstance(node.args[0], ast.Constant):
        return str(node.args[0].value)
    return ""


def _with_functions(tree: ast.Module) -> list[tuple[ast.AST, ast.AST]]:
    """Every node with the function that it is in."""
    found: list[tuple[ast.AST, ast.AST]] = []

    def walk(node: ast.AST, function: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            inner = child if isinstance(child, ast.FunctionDef) else function
            found.append((inner, child))
            walk(child, inner)

    walk(tree, tree)
    return found


def _guarded(function: ast.AST) -> bool:
    """Whether the function asks for the level, by a constant whose name says so."""
    names = {node.id for node in ast.walk(function) if isinstance(node, ast.Name)}
    compared = any(isinstance(node, ast.Compare) for node in ast.walk(function))
    return compared and any(name.endswith(("_SINCE", "_API")) for name in names)


def _text(call: ast.Call, by_name: dict[str, list[Member]], classes: dict[str, str]) -> list[str]:
    """
    A Python text is taken by pyjnius for String alone where there are several overloads; with one it converts.

    A method may be any class's of the lists that has its name; a constructor's class is known.
    """
    if isinstance(call.func, ast.Attribute) and call.func.attr in by_name:
        name, candidates = call.func.attr, by_name[call.func.attr]
    elif ast.unparse(call.func) in classes:
        name = classes[ast.unparse(call.func)]
        candidates = [member for member in members().get(name, []) if member.name == "<init>"]
    else:
        return []
    found = []
    for owner in {member.owner for member in candidates}:
        overloads = [m for m in candidates if m.owner == owner and m.parameters is not None]
        fitting = [m for m in overloads if m.parameters is not None and len(m.parameters) == len(call.args)]
        if len(overloads) < 2:
            continue
        for index, argument in enumerate(call.args):
            kinds = {m.parameters[index] for m in fitting if m.parameters is not None}
            cast = isinstance(argument, ast.Call) and ast.unparse(argument.func) == "cast"
            if kinds == {"java.lang.CharSequence"} and not cast:
                found.append(
                    f"line {call.lineno}: argument {index + 1} of {name} is a CharSequence of several overloads: "
                    'cast("java.lang.CharSequence", String(text))'
                )
    return found
