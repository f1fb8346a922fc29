"""Calls into the user's code: whatever it raises becomes one sentence with its file and line."""

from __future__ import annotations

import sys
import sysconfig
import traceback
from pathlib import Path

__all__ = ["say_where_raised"]

_OURS = Path(__file__).resolve().parents[1]
_PACKAGES = tuple(_OURS / name for name in ("coordinator", "exporters", "mobile_sdk"))


def say_where_raised(error: BaseException, *, message: bool = True) -> str:
    """
    ``in FILE, line N: TYPE: MESSAGE``, in one line; without ``message`` it ends with the type.

    The place is the innermost line of the user's code; where there is none, that of the library that raised it. Where
    there is neither, as for a function that takes other arguments, it is ``with TYPE: MESSAGE``.
    """
    first = str(error).strip().partition("\n")[0]
    words = f"{type(error).__name__}: {first}" if first and message else type(error).__name__
    if isinstance(error, SyntaxError) and error.filename:
        return f"in {error.filename}, line {error.lineno}: {words}"
    frames = traceback.extract_tb(error.__traceback__)
    users = [frame for frame in frames if _is_users(frame.filename)]
    others = [frame for frame in frames if not any(Path(frame.filename).is_relative_to(ours) for ours in _PACKAGES)]
    if not (users or others):
        return f"with {words}"
    frame = (users or others)[-1]
    return f"in {frame.filename}, line {frame.lineno}: {words}"


def _is_users(filename: str) -> bool:
    file = Path(filename)
    if filename.startswith("<") or {"site-packages", "dist-packages"} & set(file.parts):
        return False
    outside = (*_PACKAGES, Path(sysconfig.get_path("stdlib")), Path(sys.prefix) / "lib")
    return not any(file.is_relative_to(folder) for folder in outside)
