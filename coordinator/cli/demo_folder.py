"""
The folder that a demo works in: what an earlier demo made there is replaced, and nothing else is touched.

What a demo makes carries a mark: a file of that name in the folder, and one in each folder inside that it made.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from ..errors import CoordinatorError

__all__ = ["MARK", "clear_demo_folder"]

MARK = ".made-by-ftte-demo"
_WORDS = "A demo of FTTE made this folder and removes it when it starts again.\n"


def clear_demo_folder(folder: Path, *, folders: Sequence[str], files: Sequence[str] = (), remedy: str) -> None:
    """
    Make ``folder`` ready for a demo: what it is to make anew is removed, and made empty and marked.

    Args:
        folder: where the demo works; made if it is missing.
        folders: names of the folders inside that the demo makes.
        files: names of the files inside that it writes.
        remedy: what a user can do where something is in the way.

    Raises:
        CoordinatorError: if one of them is there without a demo's mark, or cannot be removed. Nothing has changed then.

    """
    marked = (folder / MARK).exists()
    for name in folders:
        path = folder / name
        if (path.exists() or path.is_symlink()) and (path.is_symlink() or not (path / MARK).is_file()):
            raise CoordinatorError(f"{path} was not made by a demo, which would have to remove it: {remedy}")
    for name in files:
        if (folder / name).exists() and not marked:
            raise CoordinatorError(f"{folder / name} was not made by a demo, which would overwrite it: {remedy}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / MARK).write_text(_WORDS)
        for name in folders:
            if (folder / name).exists():
                shutil.rmtree(folder / name)
            (folder / name).mkdir()
            (folder / name / MARK).write_text(_WORDS)
    except OSError as error:
        raise CoordinatorError(f"{error.filename or folder} cannot be used: {error.strerror}; {remedy}") from error
