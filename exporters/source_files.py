"""
Which of a user's files a task is made of, and their hashes: found by name, without importing anything.

A coordinator that starts again compares them, and needs no torch where nothing has changed.
"""

from __future__ import annotations

import hashlib
import sys
import sysconfig
from collections.abc import Iterable, Mapping
from pathlib import Path

__all__ = ["changed_files", "file_hashes", "module_file"]

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


def module_file(name: str) -> Path | None:
    """The source file that ``import name`` would find in the folders of ``sys.path``; none if there is none."""
    relative = Path(*name.split("."))
    for folder in sys.path:
        for file in (Path(folder or ".") / relative / "__init__.py", Path(folder or ".") / relative.with_suffix(".py")):
            if file.is_file():
                return file
    found = getattr(sys.modules.get(name), "__file__", None)  # of an editable installation
    return Path(found) if found and Path(found).is_file() else None


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
