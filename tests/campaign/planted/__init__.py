"""
Faults that are planted on purpose: a campaign that finds none of them proves nothing.

Each ``NAME.patch`` of this folder, or of ``gateways``, which has those of federations with gateways, says in its first
line what is wrong, then names a function and gives parts of its source with what to put in their place::

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

__all__ = ["at_gateways", "names", "planted"]

_FOLDER = Path(__file__).parent


def names() -> list[str]:
    """The planted faults."""
    return sorted(path.stem for path in _FOLDER.rglob("*.patch"))


def at_gateways(name: str) -> bool:
    """Whether the fault ``name`` needs gateways to be found."""
    return _path(name).parent != _FOLDER


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
