"""What leaves the phone and what never does, what runs here, and the app's own settings."""

from __future__ import annotations

from kivy.properties import StringProperty

from ..status import Status
from ..words import LANGUAGES
from .page import Page, layout

__all__ = ["AboutPage"]


class AboutPage(Page):
    """Privacy in plain words, engine and versions, language, look, and the log."""

    notice = StringProperty("")

    def on_kv_post(self, base_widget: object) -> None:
        """A choice per language."""
        from ..widgets.parts import Choice

        for code, name in LANGUAGES.items():
            choice = Choice(text=name, group="language", state="down" if code == self.app.language else "normal")
            choice.bind(on_release=lambda _, code=code: setattr(self.app, "language", code))
            self.ids.languages.add_widget(choice)

    def engine(self, status: Status, words: dict[str, str]) -> str:
        """The engine in use."""
        return words.get(f"engine_{status.engine}", words["engine_none"])

    def versions(self) -> str:
        """What is installed, a line each."""
        return "\n".join(f"{name} {version}" for name, version in self.app.host.versions().items())

    def share_log(self) -> None:
        """Give the log to another app, or say where it is."""
        self.notice = self.app.words["about_log_saved"].format(path=self.app.host.share_log())

    def stop(self) -> None:
        """End the trainer's process."""
        self.app.stop_trainer()
        self.notice = self.app.words["about_stopped"]


layout(__file__)
