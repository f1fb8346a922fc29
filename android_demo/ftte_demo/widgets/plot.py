"""A line over time, with its newest value marked."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from kivy.graphics import Color, Ellipse, Line, Mesh
from kivy.metrics import dp
from kivy.properties import ColorProperty, ListProperty, NumericProperty
from kivy.uix.widget import Widget

__all__ = ["Plot", "scaled", "smooth"]

Point = tuple[float, float]


def scaled(points: Sequence[Point], low: float, high: float, width: float, height: float) -> list[Point]:
    """
    Points of a curve in a box.

    Args:
        points: ``(x, y)``, x rising.
        low: the y at the box's bottom.
        high: the y at its top.
        width: of the box, pixels.
        height: likewise.

    """
    if not points:
        return []
    first, last = points[0][0], points[-1][0]
    span_x = last - first or 1.0
    span_y = high - low or 1.0
    return [
        ((x - first) / span_x * width, min(max((y - low) / span_y, 0.0), 1.0) * height if high != low else height / 2)
        for x, y in points
    ]


def smooth(values: Sequence[float], window: int) -> list[float]:
    """The mean of each value and the ``window - 1`` before it: what one batch happens to be is no news."""
    sums = list(itertools.accumulate(values, initial=0.0))
    return [(sums[i + 1] - sums[max(0, i + 1 - window)]) / min(i + 1, window) for i in range(len(values))]


class Plot(Widget):
    """
    Draws ``points``.

    ``low`` and ``high`` fix the vertical range; with ``low == high`` it follows the data.
    """

    points = ListProperty([])
    low = NumericProperty(0.0)
    high = NumericProperty(0.0)
    line_color = ColorProperty("#3150D0")
    grid_color = ColorProperty("#CBD2E4")

    def __init__(self, **options: object) -> None:
        super().__init__(**options)
        for name in ("points", "pos", "size", "low", "high", "line_color", "grid_color"):
            self.fbind(name, self._redraw)

    @property
    def bounds(self) -> tuple[float, float]:
        """Values at the bottom and at the top."""
        if self.low != self.high:
            return self.low, self.high
        values = [y for _, y in self.points] or [0.0]
        return min(0.0, *values), max(values)

    def _redraw(self, *_: object) -> None:
        self.canvas.clear()
        inset = dp(5)
        x0, y0 = self.x, self.y + inset
        width, height = max(1.0, self.width - inset), max(1.0, self.height - 2 * inset)
        low, high = self.bounds
        curve = [(x0 + x, y0 + y) for x, y in scaled(self.points, low, high, width, height)]
        with self.canvas:
            Color(*self.grid_color)
            for part in (0.0, 0.5, 1.0):
                level = y0 + part * height
                Line(points=[x0, level, x0 + width, level], width=1)
            if not curve:
                return
            Color(*self.line_color[:3], 0.18)
            vertices: list[float] = []
            for x, y in curve:
                vertices += [x, y0, 0, 0, x, y, 0, 0]
            Mesh(vertices=vertices, indices=list(range(2 * len(curve))), mode="triangle_strip")
            Color(*self.line_color)
            if len(curve) > 1:
                Line(points=[value for point in curve for value in point], width=dp(1.4), joint="round")
            x, y = curve[-1]
            Ellipse(pos=(x - dp(3.5), y - dp(3.5)), size=(dp(7), dp(7)))
