"""Budgets: bytes as people write them."""

from __future__ import annotations

import re

__all__ = ["format_bytes", "parse_bytes"]

_UNITS = {
    "": 1,
    "B": 1,
    "KB": 1000,
    "MB": 1000**2,
    "GB": 1000**3,
    "KIB": 1024,
    "MIB": 1024**2,
    "GIB": 1024**3,
}
_PATTERN = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", re.ASCII)


def parse_bytes(text: str | int) -> int:
    """
    Bytes of ``"2MB"``, ``"512 KiB"`` or a plain number; KB is 1000 bytes, KiB 1024.

    Raises:
        ValueError: if ``text`` is anything else, or less than one byte.

    """
    match = _PATTERN.fullmatch(str(text))
    if match is None or match[2].upper() not in _UNITS:
        raise ValueError(f"{text!r} is not an amount of memory; write it like 800KB, 2MB or 1.5MiB")
    count = int(float(match[1]) * _UNITS[match[2].upper()])
    if count < 1:
        raise ValueError(f"{text!r} is less than one byte")
    return count


def format_bytes(count: int) -> str:
    """``count`` bytes in the unit that reads best: ``"1.94 MB"``."""
    for unit, size in (("GB", 1000**3), ("MB", 1000**2), ("KB", 1000)):
        if count >= size:
            return f"{count / size:.2f} {unit}" if count < 10 * size else f"{count / size:.1f} {unit}"
    return f"{count} bytes"
