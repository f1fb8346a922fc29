"""Draw a digit, see what the model makes of it, and correct it with a tap."""

from __future__ import annotations

from kivy.properties import BooleanProperty, ListProperty, NumericProperty, StringProperty

from ..sizes import percent
from ..status import Status
from ..widgets.parts import Action
from .page import Page, layout

__all__ = ["DrawPage"]


class DrawPage(Page):
    """
    The pad and the guess.

    ``probabilities`` has ten numbers, or none before a guess; ``guess`` is the likeliest label.
    """

    probabilities = ListProperty([])
    guess = StringProperty("")
    confidence = NumericProperty(0.0)
    notice = StringProperty("")
    model_missing = BooleanProperty(False)

    def __init__(self, **options: object) -> None:
        self._asked = 0
        super().__init__(**options)

    def on_kv_post(self, base_widget: object) -> None:
        """A button per digit."""
        for label in range(10):
            button = Action(text=str(label), kind="plain")
            button.bind(on_release=lambda _, label=label: self.correct(label))
            self.ids.digits.add_widget(button)

    def drawn(self) -> None:
        """A stroke ended: ask for a guess."""
        self._asked += 1
        self.notice = ""
        self.app.ask({"do": "predict", "id": self._asked, "strokes": self.ids.pad.strokes})

    def clear(self) -> None:
        """Wipe the pad."""
        self._asked += 1
        self.ids.pad.clear()
        self.probabilities = []
        self.guess = ""

    def correct(self, label: int) -> None:
        """The drawing is a ``label``: keep it among this phone's samples."""
        if not self.ids.pad.strokes:
            return
        self.app.ask({"do": "keep", "strokes": self.ids.pad.strokes, "label": label})

    def headline(self, guess: str, words: dict[str, str]) -> str:
        """The guess in words."""
        if guess:
            return words["draw_guess"].format(label=guess)
        return words["draw_title"]

    def detail(self, guess: str, missing: bool, words: dict[str, str]) -> str:
        """How sure the model is, or why there is no guess."""
        if missing:
            return words["draw_no_model"]
        return words["draw_sure"].format(percent=percent(self.confidence)) if guess else words["draw_hint"]

    def kept(self, status: Status, words: dict[str, str]) -> str:
        """How many drawings this phone holds."""
        return words["draw_kept"].format(n=status.drawn)

    def scores(self, status: Status, words: dict[str, str]) -> str:
        """The shared and the personal model on this phone's own samples."""
        if status.personal_accuracy < 0:
            return ""
        return words["draw_scores"].format(
            world=percent(status.global_accuracy), personal=percent(status.personal_accuracy)
        )

    def tell(self, message: dict[str, object]) -> None:
        if message.get("is") == "prediction" and message.get("id") == self._asked:
            values = message["probabilities"]
            self.model_missing = values is None
            if isinstance(values, list) and values:
                self.probabilities = values
                self.confidence = max(values)
                self.guess = str(values.index(self.confidence))
        elif message.get("is") == "kept":
            self.clear()
            self.notice = self.app.words["draw_saved"]


layout(__file__)
