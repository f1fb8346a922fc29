"""Who runs this process."""

from __future__ import annotations

import getpass
import sys

__all__ = ["user_name"]

if sys.platform != "win32":
    import os


def user_name() -> str:
    """The user's login name; ``uid-N`` where the system has none for the number, as in many containers."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid-{os.getuid()}" if sys.platform != "win32" else "unknown"
