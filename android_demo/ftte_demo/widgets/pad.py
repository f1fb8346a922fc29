"""A square to draw in with a finger."""

from __future__ import annotations

from typing import Any

from kivy.graphics import Color, Line
from kivy.properties import BooleanProperty, ColorProperty, ListProperty
from kivy.uix.widget import Widget

__all__ = ["Pad"]

_LINE = 0.09  # width of the pen, as a part of the pad's side


class Pad(Widget):
    """
    Collects strokes.

    ``strokes`` is a list of lines, each a list of ``(x, y)`` between 0 and 1, y upward. Dispatches ``on_drawn`` when
    a finger is lifted.
    """

    strokes = ListProperty([])
    empty = BooleanProperty(True)
    pen_color = ColorProperty("#141A2E")

    __events__ = ("on_drawn",)

    def __init__(self, **options: object) -> None:
        super().__init__(**options)
        for name in ("strokes", "pos", "size", "pen_color"):
            self.fbind(name, self._redraw)

    def on_drawn(self, *_: object) -> None:
        """A stroke has ended."""

    def clear(self) -> None:
        """Wipe the pad."""
        self.strokes = []

    def on_touch_down(self, touch: Any) -> bool:
        if not self.collide_point(*touch.pos) or self.disabled:
            return bool(super().on_touch_down(touch))
        touch.grab(self)
        self.strokes = [*self.strokes, [self._point(touch)]]
        return True

    def on_touch_move(self, touch: Any) -> bool:
        if touch.grab_current is not self:
            return bool(super().on_touch_move(touch))
        self.strokes[-1].append(self._point(touch))
        self._redraw()
        return True

    def on_touch_up(self, touch: Any) -> bool:
        if touch.grab_current is not self:
            return bool(super().on_touch_up(touch))
        touch.ungrab(self)
        self.dispatch("on_drawn")
        return True

    def _point(self, touch: Any) -> tuple[float, float]:
        edge = _LINE / 2  # half of the pen: no stroke runs over the edge
        return (
            min(max((touch.x - self.x) / self.width, edge), 1 - edge),
            min(max((touch.y - self.y) / self.height, edge), 1 - edge),
        )

    def _redraw(self, *_: object) -> None:
        self.empty = not self.strokes
        self.canvas.clear()
        with self.canvas:
            Color(*self.pen_color)
            for stroke in self.strokes:
                points = [value for x, y in stroke for value in (self.x + x * self.width, self.y + y * self.height)]
                if len(stroke) == 1:
                    points += [points[0] + 1, points[1]]
                Line(points=points, width=self.width * _LINE / 2, joint="round", cap="round")
