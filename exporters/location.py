"""Where this package's own files are, without importing the package's root, which offers what builds on this."""

from __future__ import annotations

from pathlib import Path

__all__ = ["PACKAGE_FOLDER"]

PACKAGE_FOLDER = Path(__file__).resolve().parent
