"""A plot with numbers on its axes."""

from __future__ import annotations

from pathlib import Path

from kivy.lang import Builder
from kivy.properties import ColorProperty, ListProperty, NumericProperty, StringProperty
from kivy.uix.boxlayout import BoxLayout

from . import parts, plot

__all__ = ["Chart"]

# Their names are used in the layout.
_WIDGETS = (parts, plot)


class Chart(BoxLayout):
    """
    Draws ``points`` as :class:`~.plot.Plot` does.

    ``top`` and ``bottom`` are written beside the ends of the vertical axis, ``first`` and ``last`` below those of the
    horizontal one.
    """

    points = ListProperty([])
    low = NumericProperty(0.0)
    high = NumericProperty(0.0)
    top = StringProperty("")
    bottom = StringProperty("")
    first = StringProperty("")
    last = StringProperty("")
    line_color = ColorProperty("#3150D0")
    grid_color = ColorProperty("#CBD2E4")


Builder.load_file(str(Path(__file__).with_suffix(".kv")))
