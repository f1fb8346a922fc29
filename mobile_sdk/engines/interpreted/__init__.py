"""Programs in numpy, for machines that ExecuTorch is not made for, such as 32-bit phones."""

from __future__ import annotations

from .engine import InterpretedEngine

__all__ = ["InterpretedEngine"]
