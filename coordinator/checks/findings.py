"""What a check says."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple

from ..errors import ConfigError

__all__ = ["Finding", "raise_first_error"]


class Finding(NamedTuple):
    """A sentence, and how bad it is: ``error`` where the run would not work."""

    level: Literal["ok", "warning", "error"]
    sentence: str


def raise_first_error(findings: Iterable[Finding]) -> list[str]:
    """
    The sentences of all warnings.

    Raises:
        ConfigError: with the first error's sentence.

    """
    warnings = []
    for level, sentence in findings:
        if level == "error":
            raise ConfigError(sentence)
        if level == "warning":
            warnings.append(sentence)
    return warnings
