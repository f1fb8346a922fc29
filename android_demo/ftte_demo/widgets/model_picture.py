"""A small picture of the model: a column per layer, lit as far as this phone trains it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from kivy.graphics import Color, RoundedRectangle
from kivy.metrics import dp
from kivy.properties import ColorProperty, ListProperty
from kivy.uix.widget import Widget

from ..status import Layer

__all__ = ["Column", "ModelPicture", "columns"]

Column = tuple[float, float, float]


def columns(layers: Sequence[Layer]) -> list[Column]:
    """
    ``(height, lit, personal)`` of each layer, as parts of the picture's height.

    Heights follow the logarithm of the number of parameters, so that a small layer can still be seen; the lit part is
    the trained share of the column.
    """
    if not layers:
        return []
    largest = max(math.log1p(layer.size) for layer in layers)
    result = []
    for layer in layers:
        height = max(0.15, math.log1p(layer.size) / largest) if largest else 1.0
        share = height * layer.trained / layer.size if layer.size else 0.0
        if layer.trained:
            share = max(share, 0.08)
        result.append((height, 0.0 if layer.local else share, share if layer.local else 0.0))
    return result


class ModelPicture(Widget):
    """Draws ``layers``, input on the left."""

    layers = ListProperty([])
    lit_color = ColorProperty("#0F8A5F")
    unlit_color = ColorProperty("#CBD2E4")
    personal_color = ColorProperty("#B4560B")

    def __init__(self, **options: object) -> None:
        super().__init__(**options)
        for name in ("layers", "pos", "size", "lit_color", "unlit_color", "personal_color"):
            self.fbind(name, self._redraw)

    def _redraw(self, *_: object) -> None:
        self.canvas.clear()
        drawn = columns(self.layers)
        if not drawn:
            return
        gap = min(dp(8), self.width / len(drawn) * 0.25)
        width = min(dp(40), (self.width - gap * (len(drawn) - 1)) / len(drawn))
        x = self.x + (self.width - (width + gap) * len(drawn) + gap) / 2
        with self.canvas:
            for height, lit, personal in drawn:
                y = self.y + (1 - height) / 2 * self.height
                for colour, part in (
                    (self.unlit_color, height),
                    (self.lit_color, lit),
                    (self.personal_color, personal),
                ):
                    if part > 0:
                        Color(*colour)
                        RoundedRectangle(pos=(x, y), size=(width, part * self.height), radius=[min(dp(4), width / 3)])
                x += width + gap
