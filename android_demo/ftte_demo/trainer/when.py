"""When the user lets this phone train: pause and switches of the screen, kept over restarts, as the SDK's policy."""

from __future__ import annotations

import json
from pathlib import Path

from mobile_sdk.policy.rules import Policy

__all__ = ["SWITCHES", "When"]

SWITCHES = ("charging", "wifi", "battery")
# On a phone, before anything was chosen: nobody's battery or data is spent unasked.
_CAREFUL = ("charging", "wifi")
_LEAST_CHARGE = 0.3
# Without work for so long, the phone leaves and comes back later: a connection that is kept open keeps the radio awake.
_PATIENCE_SECONDS = 60.0
_AWAY_SECONDS = 900.0


class When:
    """
    The switches of one phone.

    Args:
        folder: the app's private folder.
        phone: whether this is one, with a battery and a data plan.

    ``on`` maps each switch to whether it is on; ``paused`` tells whether the user paused training.
    """

    def __init__(self, folder: Path, phone: bool = True) -> None:
        self._folder = folder
        self._path = folder / "when.json"
        self.on = {name: phone and name in _CAREFUL for name in SWITCHES}
        self.paused = False
        try:
            saved = json.loads(self._path.read_text("utf-8"))
            self.on |= {name: bool(saved.get(name, on)) for name, on in self.on.items()}
            self.paused = bool(saved.get("paused", False))
        except (OSError, ValueError, AttributeError):
            pass  # nothing was chosen yet

    def switch(self, name: str, on: bool) -> None:
        """
        Turn a switch.

        Raises:
            ValueError: if there is none of that name.

        """
        if name not in self.on:
            raise ValueError(f"there is no switch {name!r}, only {', '.join(SWITCHES)}")
        self.on[name] = on
        self._save()

    def pause(self, on: bool) -> None:
        """Train no more until told otherwise, or again."""
        if on != self.paused:
            self.paused = on
            self._save()

    def _save(self) -> None:
        part = self._path.with_suffix(".part")
        part.write_text(json.dumps(self.on | {"paused": self.paused}), "utf-8")
        part.replace(self._path)

    def policy(self) -> Policy:
        """What the SDK keeps to."""
        return Policy(
            charging=self.on["charging"],
            unmetered=self.on["wifi"],
            battery_above=_LEAST_CHARGE if self.on["battery"] else 0.0,
            lock=self._folder / "training.lock",
            patience_seconds=_PATIENCE_SECONDS,
            away_seconds=_AWAY_SECONDS,
        )
