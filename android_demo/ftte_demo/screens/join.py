"""Join a run: by an invitation's link, or typed in; what the app is about, and who takes part."""

from __future__ import annotations

from kivy.properties import BooleanProperty, NumericProperty, StringProperty

from ..status import Phase, Status
from ..words import without_code
from .page import Page, layout

__all__ = ["JoinPage"]


class JoinPage(Page):
    """The form until the phone has joined, then the state of the connection; and what went wrong, in words."""

    error = StringProperty("")
    by_hand = BooleanProperty(False)
    insecure = BooleanProperty(False)
    budget = NumericProperty(0)

    def on_kv_post(self, base_widget: object) -> None:
        """What is not to be seen is not there: a hidden card would still take touches."""
        self._cards = [self.ids.state.__self__, self.ids.form.__self__]
        for name in ("status", "error"):
            self.fbind(name, self._arrange)
        self._arrange()

    def _arrange(self, *_: object) -> None:
        status = self.status
        wanted = [status.joined or status.phase == Phase.FAILED or bool(self.error), not status.joined]
        cards = [card for card, is_wanted in zip(self._cards, wanted, strict=True) if is_wanted]
        column = self.ids.column
        if column.children[::-1] != cards:
            column.clear_widgets()
            for card in cards:
                column.add_widget(card)

    def headline(self, status: Status, words: dict[str, str]) -> str:
        """The state of the connection in a few words."""
        return words[f"phase_{status.shown_phase}"]

    def fleet(self, status: Status, words: dict[str, str]) -> str:
        """How many take part, and what they have made."""
        if status.newest < 0:  # not let in, or not yet
            return words["join_lead"]
        if not status.devices:
            return words["fleet_unknown"]
        words_of = words["fleet_alone" if status.devices == 1 else "fleet_many"]
        return words_of.format(n=status.devices, version=status.newest)

    def detail(self, status: Status, words: dict[str, str]) -> str:
        """Who joined, or why not."""
        lines = []
        if status.joined:
            lines.append(status.run + " " + words["join_as"].format(device=status.device or "..."))
            lines.append(status.address)
        if status.reason and status.phase != Phase.FAILED:
            lines.append(without_code(status.reason))
        if status.phase == Phase.CONNECTING and status.retry_seconds:
            lines.append(words["retry_in"].format(seconds=f"{status.retry_seconds:.0f}"))
        return "\n".join(lines)

    def problem(self, status: Status, error: str) -> str:
        """What went wrong: with the run, or with what was typed."""
        return without_code(status.reason if status.phase == Phase.FAILED else error)

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
