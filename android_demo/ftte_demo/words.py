"""Every word that the screens show, from one file, in the languages it has."""

from __future__ import annotations

import json
import locale
from pathlib import Path

__all__ = ["LANGUAGES", "preferred", "words"]

_WORDS: dict[str, dict[str, str]] = json.loads(Path(__file__).with_name("words.json").read_text("utf-8"))

# Code -> its name in itself.
LANGUAGES = {"en": "English", "es": "Español"}


def words(language: str) -> dict[str, str]:
    """The words of a language; English for one that is not there."""
    return _WORDS.get(language, _WORDS["en"])


def preferred() -> str:
    """The system's language where the app speaks it, else English."""
    code = (locale.getlocale()[0] or "en")[:2].lower()
    return code if code in _WORDS else "en"
