"""How a rewrite refuses."""

from __future__ import annotations

__all__ = ["Unsupported"]


class Unsupported(Exception):
    """A rewrite does not cover ``what``; ``instead`` is what the model can use. Becomes an ``ExportError``."""

    def __init__(self, what: str, instead: str) -> None:
        super().__init__(f"{what} cannot be trained on a device; use {instead}")
