"""What every screen is: a page that scrolls, in one column or two, and shows the newest status."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kivy.app import App
from kivy.lang import Builder
from kivy.properties import ObjectProperty
from kivy.uix.screenmanager import Screen
from kivy.uix.scrollview import ScrollView

from ..status import Status
from ..widgets import chart, fleet_picture, icons, model_picture, pad, parts, plot

__all__ = ["Page", "layout"]

# Their names are used in the layouts.
_WIDGETS = (chart, fleet_picture, icons, model_picture, pad, parts, plot)


def layout(module_file: str) -> None:
    """Load the ``.kv`` file beside a screen's module."""
    Builder.load_file(str(Path(module_file).with_suffix(".kv")))


class Scroller(ScrollView):
    """Scrolls its content, except under a finger that is on the widget ``solid``: that one draws."""

    solid = ObjectProperty(None, allownone=True)

    def on_touch_down(self, touch: Any) -> bool:
        if self.solid is None or not self.collide_point(*touch.pos):
            return bool(super().on_touch_down(touch))
        # To the content's own coordinates, in which all its boxes are placed.
        touch.push()
        touch.apply_transform_2d(self.to_local)
        drawn = self.solid.collide_point(*touch.pos) and self.solid.dispatch("on_touch_down", touch)
        touch.pop()
        return bool(drawn or super().on_touch_down(touch))


class Page(Screen):
    """
    A screen.

    ``status`` is what the trainer told last.
    """

    status = ObjectProperty(Status(), rebind=True)

    @property
    def app(self) -> Any:
        """The running app."""
        return App.get_running_app()

    def tell(self, message: dict[str, Any]) -> None:
        """An answer of the trainer that is no status."""


layout(__file__)
