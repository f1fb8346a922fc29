"""Colours of the two looks, as RGBA between 0 and 1."""

from __future__ import annotations

__all__ = ["DARK", "LIGHT"]

Colour = tuple[float, float, float, float]


def _colour(code: str) -> Colour:
    red, green, blue = (int(code[i : i + 2], 16) / 255 for i in (0, 2, 4))
    return red, green, blue, 1.0


def _theme(codes: dict[str, str]) -> dict[str, Colour]:
    return {name: _colour(code) for name, code in codes.items()}


# Text on its ground has a contrast of at least 4.5 (WCAG AA) in both.
LIGHT = _theme(
    {
        "ground": "F4F6FB",
        "surface": "FFFFFF",
        "raised": "E8ECF6",
        "ink": "141A2E",
        "muted": "535B75",
        "accent": "3150D0",
        "on_accent": "FFFFFF",
        "lit": "0F8A5F",
        "unlit": "CBD2E4",
        "personal": "B4560B",
        "danger": "B3261E",
        "on_danger": "FFFFFF",
    }
)
DARK = _theme(
    {
        "ground": "0E1220",
        "surface": "191F33",
        "raised": "262E49",
        "ink": "EDF0FB",
        "muted": "A8B0CC",
        "accent": "8FA6FF",
        "on_accent": "0E1220",
        "lit": "3FD69A",
        "unlit": "3A4363",
        "personal": "FFB066",
        "danger": "FF8A80",
        "on_danger": "0E1220",
    }
)
