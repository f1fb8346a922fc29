"""The four signs of the navigation, drawn as lines on a square of 24: no font has to hold them."""

from __future__ import annotations

from kivy.graphics import Color, Line
from kivy.properties import ColorProperty, StringProperty
from kivy.uix.widget import Widget

__all__ = ["Icon"]

# Lines, each a list of x, y on a square of 24, y upward.
_LINES: dict[str, list[list[float]]] = {
    "join": [[12, 20, 12, 4], [4, 12, 20, 12]],
    "train": [[3, 5, 8, 10, 13, 8, 21, 19], [15, 19, 21, 19, 21, 13]],
    "draw": [[4, 4, 5, 9, 16, 20, 20, 16, 9, 5, 4, 4], [13, 17, 17, 13]],
    "about": [[12, 11, 12, 5], [12, 15.5, 12, 16]],
}
_CIRCLES: dict[str, tuple[float, float, float]] = {"join": (12, 12, 10), "about": (12, 12, 10)}


class Icon(Widget):
    """Draws the sign ``name``, centred."""

    name = StringProperty("")
    color = ColorProperty("#141A2E")

    def __init__(self, **options: object) -> None:
        super().__init__(**options)
        for name in ("name", "color", "pos", "size"):
            self.fbind(name, self._redraw)

    def _redraw(self, *_: object) -> None:
        self.canvas.clear()
        side = min(self.width, self.height)
        # Not center_x: it may still be that of the size before.
        x0, y0, unit = self.x + (self.width - side) / 2, self.y + (self.height - side) / 2, side / 24
        with self.canvas:
            Color(*self.color)
            if self.name in _CIRCLES:
                x, y, radius = _CIRCLES[self.name]
                Line(circle=(x0 + x * unit, y0 + y * unit, radius * unit), width=max(1.0, unit))
            for line in _LINES.get(self.name, []):
                points = [(x0 if i % 2 == 0 else y0) + value * unit for i, value in enumerate(line)]
                Line(points=points, width=max(1.0, unit), joint="round", cap="round")
