"""Texts of a peer, or for one: which may be names, and how they are shown."""

from __future__ import annotations

import re
from typing import Any

__all__ = ["MAX_STRING", "NAME", "NAME_RULE", "is_name", "printable", "shortened"]

MAX_STRING = 4096
NAME_RULE = "1 to 64 letters, digits, '.', '-' or '_', with a letter or digit first"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def is_name(text: str) -> bool:
    """Whether ``text`` can name a run or a device."""
    return NAME.fullmatch(text) is not None


def printable(text: str) -> str:
    """``text`` as a message may carry it: on one line, without control characters, not too long."""
    return "".join(c if c.isprintable() else " " for c in text)[:MAX_STRING]


def shortened(value: Any) -> str:
    """A value in quotes, as an error may carry it: without control characters, and of at most 80 characters."""
    text = ascii(value[:200] if isinstance(value, str) else value)
    return text if len(text) <= 80 else text[:77] + "..."
