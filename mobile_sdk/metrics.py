"""Metrics as people read them."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["format_metrics"]


def format_metrics(metrics: Mapping[str, float]) -> str:
    """Names and values with four decimals, in their order: ``"accuracy 0.9125, loss 0.3321"``."""
    return ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())
