"""Sizes and numbers as people write them: ``400KB``, ``2 MB``, ``1.5MiB``; KB is 1000 bytes, KiB is 1024."""

from __future__ import annotations

import re

__all__ = ["format_bytes", "format_count", "parse_bytes"]

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", re.ASCII)


def parse_bytes(text: str | int) -> int:
    """
    Bytes of a size such as ``"2MB"``; a number is taken as bytes.

    Raises:
        ValueError: if ``text`` is not a size, or less than one byte.

    """
    match = _SIZE.fullmatch(str(text))
    if match is not None and match[2] in ("Kb", "Mb", "Gb"):
        raise ValueError(f"{text!r} would be bits: write {match[1]} {match[2].upper()} for bytes")
    if match is None or match[2].upper() not in _UNITS:
        raise ValueError(f"{text!r} is not a size; write it like 400KB, 2MB or 1.5MiB")
    size = float(match[1]) * _UNITS[match[2].upper()]
    if size >= 2**63:
        raise ValueError(f"{str(text)[:40]!r} is more than any machine holds; write it like 400KB, 2MB or 1.5MiB")
    count = round(size)
    if count < 1:
        raise ValueError(f"{text!r} is less than one byte")
    return count


def format_bytes(count: float) -> str:
    """A size for people, in the unit that reads best: ``"83.1 KB"``, ``"1.94 MB"``."""
    for unit, size in (("GB", 1000**3), ("MB", 1000**2), ("KB", 1000)):
        if count >= size:
            return f"{count / size:.2f} {unit}" if count < 10 * size else f"{count / size:.1f} {unit}"
    return f"{count:.0f} B"


def format_count(count: int, noun: str) -> str:
    """A number of things for people: ``"1 program"``, ``"12 programs"``."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
