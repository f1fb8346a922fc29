"""The app: four screens around one line to the trainer."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from kivy.app import App
from kivy.clock import Clock, mainthread
from kivy.core.window import Window
from kivy.lang import Builder
from kivy.properties import BooleanProperty, DictProperty, NumericProperty, ObjectProperty, StringProperty
from kivy.uix.boxlayout import BoxLayout

from .host import Host
from .line import Line
from .rest import Rest
from .screens.about import AboutPage
from .screens.draw import DrawPage
from .screens.join import JoinPage
from .screens.page import Page
from .screens.train import TrainPage
from .status import Status
from .theme import DARK, LIGHT
from .words import SETTINGS, spoken, words

__all__ = ["DemoApp", "Root"]

# How often the screens look for news: often enough to look alive, seldom enough to cost nothing.
_LOOK_SECONDS = 1 / 15
# Without a line for so long, the trainer's process is not there.
_MISSING_SECONDS = 4.0


class Root(BoxLayout):
    """The navigation and the screen that it chose."""

    notice = StringProperty("")
    pages: list[Page]

    def on_kv_post(self, base_widget: object) -> None:
        """The screens, in the order of the navigation."""
        self.pages = [JoinPage(), TrainPage(), DrawPage(), AboutPage()]
        app = App.get_running_app()
        for page in self.pages:
            app.bind(status=page.setter("status"))
            self.ids.screens.add_widget(page)

    def show(self, name: str) -> None:
        """Go to a screen."""
        self.ids.screens.current = name
        for item in self.ids.navigation.children:
            item.state = "down" if item.screen == name else "normal"


class DemoApp(App):
    """
    The Kivy app.

    Args:
        host: the system that it runs on: where files lie, how the trainer starts, what the screen looks like.

    """

    words = DictProperty(words("en"))
    theme = DictProperty(LIGHT)
    language = StringProperty("en")
    dark = BooleanProperty(False)
    text = NumericProperty(1.0)
    wide = BooleanProperty(False)
    status = ObjectProperty(Status(), rebind=True)
    trainer_missing = BooleanProperty(False)
    resting = StringProperty("")

    title = "FTTE"

    def __init__(self, host: Host, **options: Any) -> None:
        self.host = host
        self._line: Line | None = None
        super().__init__(**options)

    def build(self) -> Root:
        """The window's content."""
        Builder.load_file(str(Path(__file__).with_suffix(".kv")))
        self._load_settings()
        self.on_language()
        self.on_dark()
        Window.bind(size=self._resized)
        self._resized(Window, Window.size)
        return Root()

    def on_start(self) -> None:
        """Start the trainer, or find the one that is at work already."""
        self.host.start_trainer()
        self._line = Line(self.host.folder)
        Clock.schedule_interval(self._look, _LOOK_SECONDS)
        # The system answers in a thread of its own, and Kivy's widgets change in the main thread only.
        self.host.on_invitation(mainthread(self._invited))
        self.host.ask_permissions(mainthread(lambda: self._notify(self.words["notice_denied"])))

    def on_stop(self) -> None:
        """The window closes. Training goes on where the system lets it."""
        if self._line is not None:
            self._line.close()
        self.host.left()

    def on_pause(self) -> bool:
        """Android puts the app aside: keep it. Nobody looks now."""
        self.ask({"do": "look", "on": False})
        return True

    def on_resume(self) -> None:
        """The app is in front again."""
        self.ask({"do": "look", "on": True})

    def ask(self, message: dict[str, Any]) -> None:
        """Tell the trainer to do something."""
        if self._line is not None:
            self._line.say(message)

    def start_trainer(self) -> None:
        """Start the trainer again after it was stopped."""
        self.host.start_trainer()

    def stop_trainer(self) -> None:
        """End the trainer's process."""
        self.ask({"do": "stop"})

    # What follows from settings and the window.

    def on_language(self, *_: object) -> None:
        """Other words."""
        self.words = words(self.language)
        self._save_settings()
        self.ask({"do": "language"})

    def on_dark(self, *_: object) -> None:
        """Other colours."""
        self.theme = DARK if self.dark else LIGHT
        Window.clearcolor = self.theme["ground"]
        self._save_settings()

    def on_text(self, *_: object) -> None:
        """Another text size."""
        self._save_settings()

    def _resized(self, window: object, size: tuple[int, int]) -> None:
        self.wide = size[0] > size[1]

    def _look(self, seconds: float) -> None:
        assert self._line is not None
        missing = self._line.alone_seconds > _MISSING_SECONDS
        if missing and not self.trainer_missing:
            self.resting = self._resting()
        self.trainer_missing = missing
        newest = None
        for message in self._line.received():
            if message.get("is") == "status":
                newest = message["status"]
            elif self.root is not None:
                for page in self.root.pages:
                    page.tell(message)
        if newest is not None:
            self.status = Status.from_json(newest)

    def _resting(self) -> str:
        """Why no trainer is at work, and whether it begins again by itself."""
        why = Rest(self.host.folder).read()
        lines = [self.words[f"rest_{why}"] if why else self.words["service_gone"]]
        if self.host.visits():
            lines.append(self.words["rest_again"])
        return " ".join(lines)

    def _invited(self, link: str) -> None:
        self.root.show("join")
        self.root.pages[0].invited(link)
        if os.environ.get("FTTE_DEMO_JOIN") and not self.status.joined:
            self.root.pages[0].join()  # of `make demo-app`, whose user has started the coordinator, too

    def _notify(self, text: str) -> None:
        self.root.notice = text

    def _load_settings(self) -> None:
        try:
            saved = json.loads((self.host.folder / SETTINGS).read_text("utf-8"))
        except (OSError, ValueError):
            saved = {}
        self._saved = False  # loading is no change
        self.language = spoken(saved.get("language", self.host.language()))
        self.dark = bool(saved.get("dark", self.host.prefers_dark()))
        self.text = float(saved.get("text", 1.0))
        self._saved = True

    def _save_settings(self) -> None:
        if getattr(self, "_saved", False):
            settings = {"language": self.language, "dark": self.dark, "text": self.text}
            (self.host.folder / SETTINGS).write_text(json.dumps(settings), "utf-8")
