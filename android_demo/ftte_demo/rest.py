"""Why no trainer is at work: written by the trainer when it ends (and by its Java service), read by the app."""

from __future__ import annotations

import json
from pathlib import Path

__all__ = ["REASONS", "Rest"]

# stopped: by the user. limit: the day's service time is used up. visited: a visit was made, the next one follows.
# job: Android ended a visit. refused: Android started no foreground service. idle: no run, and nobody looked.
# conditions: the phone's state does not allow it, and a job waits for that. failed: by an error; it is in the log.
REASONS = ("stopped", "limit", "visited", "job", "refused", "idle", "conditions", "failed")


class Rest:
    """The file ``rest.json`` in the app's folder."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "rest.json"

    def write(self, why: str) -> None:
        """Write the reason down, one of :data:`REASONS`."""
        part = self._path.with_suffix(".part")
        part.write_text(json.dumps({"why": why}), "utf-8")
        part.replace(self._path)

    def clear(self) -> None:
        """A trainer is at work."""
        self._path.unlink(missing_ok=True)

    def read(self) -> str:
        """The reason; empty if none is known."""
        try:
            why = json.loads(self._path.read_text("utf-8"))["why"]
        except (OSError, ValueError, KeyError, TypeError):
            return ""
        return why if why in REASONS else ""
