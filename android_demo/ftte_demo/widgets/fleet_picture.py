"""What the app is about, as a picture: phones around the one model that they train together."""

from __future__ import annotations

from kivy.animation import Animation
from kivy.graphics import Color, Line, RoundedRectangle
from kivy.metrics import dp
from kivy.properties import BooleanProperty, ColorProperty, NumericProperty
from kivy.uix.widget import Widget

__all__ = ["MOST", "FleetPicture", "places"]

# More phones than that are told by the number alone.
MOST = 9
# Heights of the columns that stand for the model, as parts of its own height.
_MODEL = (0.45, 0.8, 1.0, 0.7)
_PULSE_SECONDS = 0.9

Box = tuple[float, float, float, float]


def places(devices: int, width: float, height: float) -> tuple[Box, list[Box]]:
    """
    Where the model is, and where each phone is: ``(x, y, width, height)`` from the lower left corner of the picture.

    The model is above, the phones in a row below it; the middle one is this phone.

    Args:
        devices: how many there are; at least one is drawn, and at most :data:`MOST`.
        width: of the picture, in pixels.
        height: likewise.

    """
    count = min(max(devices, 1), MOST)
    model = (width / 2 - height * 0.24, height * 0.62, height * 0.48, height * 0.38)
    tall = height * 0.34
    across = min(tall * 0.56, width / count * 0.8)
    step = min(across * 2.2, width / count)
    left = width / 2 - step * (count - 1) / 2 - across / 2
    return model, [(left + i * step, 0.0, across, tall) for i in range(count)]


class FleetPicture(Widget):
    """Draws ``devices`` phones; their lines to the model light up when there is a new ``version``."""

    devices = NumericProperty(5)
    version = NumericProperty(-1)
    joined = BooleanProperty(False)
    pulse = NumericProperty(0.0)
    own_color = ColorProperty("#3150D0")
    other_color = ColorProperty("#535B75")
    screen_color = ColorProperty("#FFFFFF")
    model_color = ColorProperty("#0F8A5F")

    def __init__(self, **options: object) -> None:
        super().__init__(**options)
        colours = ("own_color", "other_color", "screen_color", "model_color")
        for name in ("devices", "joined", "pulse", "pos", "size", *colours):
            self.fbind(name, self._redraw)

    def on_version(self, *_: object) -> None:
        """All that made it are shown for a moment."""
        if self.joined and self.version > 0:
            Animation.cancel_all(self, "pulse")
            self.pulse = 1.0
            Animation(pulse=0.0, duration=_PULSE_SECONDS, step=1 / 15).start(self)

    def _redraw(self, *_: object) -> None:
        self.canvas.clear()
        model, phones = places(int(self.devices), self.width, self.height)
        own = len(phones) // 2
        with self.canvas:
            for i, (x, y, across, tall) in enumerate(phones):
                start = (self.x + x + across / 2, self.y + y + tall + dp(3))
                end = (
                    self.x + self.width / 2 + (i - (len(phones) - 1) / 2) * model[2] / MOST,
                    self.y + model[1] - dp(3),
                )
                Color(*self.other_color[:3], 0.45)
                Line(points=[*start, *end], width=dp(1))
                Color(*self.model_color[:3], self.pulse)
                Line(points=[*start, *end], width=dp(1.8))
            for i, (x, y, across, tall) in enumerate(phones):
                x, y, edge = self.x + x, self.y + y, across * 0.12
                Color(*(self.own_color if i == own else self.other_color))
                RoundedRectangle(pos=(x, y), size=(across, tall), radius=[across * 0.2])
                Color(*self.screen_color)
                size = (across - 2 * edge, tall - 4 * edge)
                RoundedRectangle(pos=(x + edge, y + 2.6 * edge), size=size, radius=[across * 0.1])
            Color(*self.model_color)
            wide = model[2] / len(_MODEL)
            for i, part in enumerate(_MODEL):
                low = self.y + model[1] + (1 - part) / 2 * model[3]
                x = self.x + model[0] + i * wide + wide * 0.12
                RoundedRectangle(pos=(x, low), size=(wide * 0.76, part * model[3]), radius=[wide * 0.2])
