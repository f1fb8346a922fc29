"""Every word that the screens show, from one file, in the languages it has."""

from __future__ import annotations

import json
import re
from pathlib import Path

__all__ = ["LANGUAGES", "SETTINGS", "chosen", "spoken", "without_code", "words"]

_WORDS: dict[str, dict[str, str]] = json.loads(Path(__file__).with_name("words.json").read_text("utf-8"))

# Code -> its name in itself.
LANGUAGES = {"en": "English", "es": "Español"}

# Name of the file of the app's settings in its folder.
SETTINGS = "settings.json"


def words(language: str) -> dict[str, str]:
    """The words of a language; English for one that is not there."""
    return _WORDS.get(language, _WORDS["en"])


def spoken(language: str) -> str:
    """The language if the app speaks it, else English."""
    return language if language in _WORDS else "en"


def chosen(folder: Path, system: str) -> str:
    """The language of the app's settings, else the system's where the app speaks it, else English."""
    try:
        language = json.loads((folder / SETTINGS).read_text("utf-8"))["language"]
    except (OSError, ValueError, KeyError, TypeError):
        language = system
    return spoken(str(language))


def without_code(reason: str) -> str:
    """A sentence of the SDK or the coordinator, without the code in brackets that programs read."""
    return re.sub(r" \[[a-z-]+\]$", "", reason)
