"""
Which of a user's files a task is made of, and their hashes: found by name, without importing anything.

A coordinator that starts again compares them, and needs no torch where nothing has changed.
"""

from __future__ import annotations

import hashlib
import importlib.util
import sys
import sysconfig
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

__all__ = ["changed_files", "file_hashes", "module_file", "source_hashes"]

# These are known by version.
_OURS = ("coordinator", "exporters", "ftte", "mobile_sdk")


def file_hashes(task: str) -> dict[str, str]:
    """
    SHA-256 of the sources of the task's module, and of the user's other modules that are imported now; by module name.

    Args:
        task: ``package.module:task``, which was loaded.

    """
    module = task.partition(":")[0]
    names = {module, *(name for name in list(sys.modules) if _is_users(name))}
    return dict(sorted(_hashed(names).items()))


def changed_files(recorded: Mapping[str, str]) -> list[str]:
    """Names of the modules whose sources are not those of which :func:`file_hashes` gave ``recorded``, or are gone."""
    now = _hashed(recorded)
    return [name for name, sha256 in recorded.items() if now.get(name) != sha256]


def source_hashes(names: Iterable[str]) -> dict[str, str]:
    """SHA-256 of the sources that modules have now, by name; empty for those that have none."""
    wanted = list(names)
    found = _hashed(wanted)
    return {name: found.get(name, "") for name in wanted}


def module_file(name: str) -> Path | None:
    """The source file that ``import name`` would find in the folders of ``sys.path``; none if there is none."""
    found = _in_folders(sys.path, name.split("."))
    if found is not None:
        return found
    top, *rest = name.split(".")
    try:  # of an editable installation, whose folder is known to a finder of its own
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        spec = None
    if spec is not None and rest and (inside := _in_folders(spec.submodule_search_locations or (), rest)) is not None:
        return inside
    if spec is not None and not rest and spec.origin and Path(spec.origin).is_file():
        return Path(spec.origin)
    found = getattr(sys.modules.get(name), "__file__", None)  # one that was loaded by its path
    return Path(found) if found and Path(found).is_file() else None


def _in_folders(folders: Iterable[str], parts: Sequence[str]) -> Path | None:
    relative = Path(*parts)
    for folder in folders:
        for file in (Path(folder or ".") / relative / "__init__.py", Path(folder or ".") / relative.with_suffix(".py")):
            if file.is_file():
                return file
    return None


def _hashed(names: Iterable[str]) -> dict[str, str]:
    files = {name: module_file(name) for name in names}
    return {name: hashlib.sha256(file.read_bytes()).hexdigest() for name, file in files.items() if file is not None}


def _is_users(name: str) -> bool:
    if name.startswith("__") or name.partition(".")[0] in (*_OURS, *sys.stdlib_module_names):
        return False
    file = Path(getattr(sys.modules.get(name), "__file__", None) or "")
    installed = {"site-packages", "dist-packages"} & set(file.parts) or file.is_relative_to(
        sysconfig.get_path("stdlib")
    )
    return file.suffix == ".py" and file.is_absolute() and file.is_file() and not installed
