"""Numbers as people read them on a small screen."""

from __future__ import annotations

__all__ = ["megabytes", "percent"]


def megabytes(count: int) -> str:
    """``12.3 MB``; KB below a tenth of it. A KB is 1000 bytes."""
    if count < 100_000:
        return f"{count / 1e3:.1f}\N{NO-BREAK SPACE}KB"
    return f"{count / 1e6:.1f}\N{NO-BREAK SPACE}MB"


def percent(share: float) -> str:
    """``43 %``; below one percent, one digit more."""
    value = 100 * share
    return f"{value:.1f}\N{NO-BREAK SPACE}%" if 0 < value < 1 else f"{value:.0f}\N{NO-BREAK SPACE}%"
