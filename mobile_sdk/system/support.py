"""What of the product this system can run at all."""

from __future__ import annotations

import platform
import sys

__all__ = ["has_desktop", "is_macos", "is_windows", "runs_native_programs"]


def runs_native_programs() -> bool:
    """
    Whether ExecuTorch's runtime, and the measurement of its memory, exist for this system.

    Exporter, planner, coordinator and simulator need both; a device can do with the interpreted engine. setup.py loads
    this file alone, before the package can be imported.
    """
    return sys.platform == "linux" or (is_macos() and platform.machine() == "arm64")


def is_macos() -> bool:
    """Whether this is macOS, on either of its processors."""
    return sys.platform == "darwin"


def is_windows() -> bool:
    """Whether this is Windows itself; in WSL it is Linux."""
    return sys.platform == "win32"


def has_desktop() -> bool:
    """Whether the system always has a desktop; Linux says so by variables of its window system."""
    return sys.platform in ("darwin", "win32")
