"""Join a run: by an invitation's link, or typed in."""

from __future__ import annotations

from kivy.properties import BooleanProperty, NumericProperty, StringProperty

from ..status import Phase
from .page import Page, layout

__all__ = ["JoinPage"]


class JoinPage(Page):
    """The form, the state of the connection, and what went wrong, in words."""

    error = StringProperty("")
    by_hand = BooleanProperty(False)
    insecure = BooleanProperty(False)
    budget = NumericProperty(0)

    def headline(self, status: object, words: dict[str, str]) -> str:
        """The state of the connection in a few words."""
        return words[f"phase_{self.status.phase}"]

    def detail(self, status: object, words: dict[str, str]) -> str:
        """Who joined, or why not."""
        lines = []
        if self.status.joined:
            lines.append(self.status.run + " " + words["join_as"].format(device=self.status.device or "..."))
            lines.append(self.status.address)
        if self.status.reason and self.status.phase != Phase.FAILED:
            lines.append(self.status.reason)
        if self.status.phase == Phase.CONNECTING and self.status.retry_seconds:
            lines.append(words["retry_in"].format(seconds=f"{self.status.retry_seconds:.0f}"))
        return "\n".join(lines)

    def invited(self, link: str) -> None:
        """An invitation was opened: its link is filled in, for the user to confirm."""
        self.ids.link.text = link
        self.error = ""

    def join(self) -> None:
        """Hand the form to the trainer; it answers with a status, or with what is wrong."""
        link = self.ids.link.text.strip()
        typed = {name: self.ids[name].text.strip() for name in ("address", "run", "key", "token")}
        options = {"insecure": self.insecure, "budget": int(self.budget)}
        self.error = ""
        if link:
            self.app.ask({"do": "join", "link": link, **options})
        elif typed["address"] and typed["run"] and typed["key"]:
            self.app.ask({"do": "join", **typed, **options})
        else:
            self.error = self.app.words["join_need_link"]

    def leave(self) -> None:
        """Give the run up."""
        self.app.ask({"do": "leave"})

    def tell(self, message: dict[str, object]) -> None:
        if message.get("is") == "error" and message.get("about") == "join":
            self.error = str(message["message"])


layout(__file__)
