"""Who runs this process."""

from __future__ import annotations

import getpass
import sys

__all__ = ["user_name"]

if sys.platform != "win32":
    from os import getuid


def user_name() -> str:
    """The user's login name; ``uid-N`` where the system has none for the number, as in many containers."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        if sys.platform == "win32":
            return "unknown"
        else:
            return f"uid-{getuid()}"
