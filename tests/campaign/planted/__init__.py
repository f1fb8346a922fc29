"""
Faults that are planted on purpose: a campaign that finds none of them proves nothing.

Each ``NAME.patch`` of this folder says in its first line what is wrong, then names a function and gives parts of its
source with what to put in their place. Those in the folders ``gateways`` and ``database`` are found by federations that
have these::

    # An update is acknowledged before it is on the disk.
    @@ coordinator.store.segments:Segments.append
    -            sync_data(descriptor)
    +            pass
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

__all__ = ["names", "planted", "world"]

_FOLDER = Path(__file__).parent


WORLDS = ("gateways", "database")


def names(*worlds: str) -> list[str]:
    """The planted faults, or those that certain federations find: ``""``, ``"gateways"`` or ``"database"``."""
    paths = sorted(_FOLDER.rglob("*.patch"), key=lambda path: path.stem)
    return [path.stem for path in paths if not worlds or world(path.stem) in worlds]


def world(name: str) -> str:
    """What federations have that find the fault ``name``; empty for those that have nothing more."""
    folder = _path(name).parent.name
    return folder if folder in WORLDS else ""


def _path(name: str) -> Path:
    (path,) = _FOLDER.rglob(f"{name}.patch")
    return path


@contextlib.contextmanager
def planted(name: str) -> Iterator[None]:
    """
    Have the fault ``name`` in the product while the context lasts; none, if it is empty.

    Raises:
        ValueError: if the product's source is not what the patch expects.

    """
    undo = []
    try:
        for target, old, new in _hunks(_path(name)) if name else ():
            undo.append(_replace(target, old, new))
        yield
    finally:
        for function in reversed(undo):
            function()


def _hunks(path: Path) -> list[tuple[str, str, str]]:
    """(function, its lines, other lines) of each part of a patch."""
    hunks = []
    for part in path.read_text().split("\n@@ ")[1:]:
        target, *lines = part.splitlines()
        old = [line[1:] for line in lines if line.startswith(("-", " "))]
        new = [line[1:] for line in lines if line.startswith(("+", " "))]
        hunks.append((target.strip(), "\n".join(old), "\n".join(new)))
    return hunks


def _replace(target: str, old: str, new: str) -> Callable[[], None]:
    module_name, _, path = target.partition(":")
    module = importlib.import_module(module_name)
    *owners, attribute = path.split(".")
    owner: Any = module
    for each in owners:
        owner = getattr(owner, each)
    kept = inspect.getattr_static(owner, attribute)
    function = getattr(kept, "fget", None) or getattr(owner, attribute)
    source = textwrap.dedent(inspect.getsource(inspect.unwrap(function)))
    old = _level(old, source)
    new = textwrap.indent(textwrap.dedent(new), _indent(old))
    if source.count(old) != 1:
        raise ValueError(f"{target} has not exactly one part that reads\n{old}\n: write the patch anew")
    space: dict[str, Any] = {}
    code = compile("from __future__ import annotations\n" + source.replace(old, new), f"<planted {target}>", "exec")
    exec(code, module.__dict__, space)
    setattr(owner, attribute, space[attribute])
    return lambda: setattr(owner, attribute, kept)


def _level(text: str, source: str) -> str:
    """``text`` with the indentation that it has in ``source``, which was moved to the left."""
    first = textwrap.dedent(text).splitlines()[0]
    for line in source.splitlines():
        if line.strip() == first.strip():
            return textwrap.indent(textwrap.dedent(text), _indent(line))
    return text


def _indent(text: str) -> str:
    line = text.splitlines()[0]
    return line[: len(line) - len(line.lstrip())]
