"""What is installed, for the page that tells."""

from __future__ import annotations

import sys

import kivy

from mobile_sdk import __version__
from mobile_sdk.manifest import EXECUTORCH_VERSION

__all__ = ["versions"]


def versions() -> dict[str, str]:
    """Names and versions."""
    return {
        "FTTE SDK": __version__,
        "ExecuTorch": EXECUTORCH_VERSION,
        "Kivy": kivy.__version__,
        "Python": sys.version.split()[0],
    }
