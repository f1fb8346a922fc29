"""Digits as a finger draws them: strokes of points between 0 and 1, y upward."""

from __future__ import annotations

import math

__all__ = ["STROKES"]

Stroke = list[list[float]]


def _arc(cx: float, cy: float, rx: float, ry: float, begin: float, end: float, steps: int = 16) -> Stroke:
    """Degrees count from the right, counter-clockwise."""
    angles = [math.radians(begin + (end - begin) * i / steps) for i in range(steps + 1)]
    return [[cx + rx * math.cos(a), cy + ry * math.sin(a)] for a in angles]


STROKES: dict[int, list[Stroke]] = {
    0: [_arc(0.5, 0.5, 0.22, 0.36, 90, 450, 28)],
    1: [[[0.42, 0.72], [0.55, 0.86], [0.55, 0.14]]],
    2: [[*_arc(0.5, 0.68, 0.22, 0.18, 160, -40), [0.3, 0.15], [0.74, 0.15]]],
    3: [[*_arc(0.47, 0.68, 0.22, 0.18, 140, -80), *_arc(0.47, 0.32, 0.25, 0.19, 80, -140)]],
    4: [[[0.55, 0.86], [0.28, 0.4], [0.75, 0.4]], [[0.6, 0.55], [0.6, 0.14]]],
    7: [[[0.26, 0.84], [0.74, 0.84], [0.45, 0.14]]],
}
