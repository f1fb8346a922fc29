"""Buttons, fields, switches and bars in the app's look; how they are drawn is in ``parts.kv``."""

from __future__ import annotations

from pathlib import Path

from kivy.lang import Builder
from kivy.properties import BooleanProperty, ColorProperty, NumericProperty, StringProperty
from kivy.uix.behaviors import ButtonBehavior, ToggleButtonBehavior
from kivy.uix.boxlayout import BoxLayout
from kivy.uix.label import Label
from kivy.uix.textinput import TextInput

__all__ = ["Action", "Bar", "Body", "Caption", "Card", "Choice", "Field", "Heading", "Legend", "NavItem", "Option"]


class Heading(Label):
    """The title of a screen or a card."""


class Body(Label):
    """Running text: wraps, and grows in height."""


class Caption(Body):
    """Small print."""


class Card(BoxLayout):
    """A raised area with rounded corners."""


class Action(ButtonBehavior, Label):
    """A button: ``kind`` is ``primary``, ``plain`` or ``danger``."""

    kind = StringProperty("primary")
    faint = NumericProperty(1.0)


class Field(TextInput):
    """A line of text to type in."""


class Option(ButtonBehavior, BoxLayout):
    """A switch with its words; the whole row is the target. ``active`` is what is set; listen to ``on_release``."""

    text = StringProperty("")
    active = BooleanProperty(False)


class Bar(BoxLayout):
    """A name, how far it is, and a bar."""

    text = StringProperty("")
    detail = StringProperty("")
    share = NumericProperty(0.0)
    bar_color = ColorProperty("#3150D0")


class Legend(BoxLayout):
    """What a colour of a picture stands for."""

    text = StringProperty("")
    mark = ColorProperty("#3150D0")
    shown = BooleanProperty(True)


class Choice(ToggleButtonBehavior, Label):
    """One of a few."""


class NavItem(ToggleButtonBehavior, BoxLayout):
    """A way to a screen."""

    text = StringProperty("")
    screen = StringProperty("")


Builder.load_file(str(Path(__file__).with_name("parts.kv")))
