"""Who is logged in: addresses that let one in once, and the sessions that come of them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import secrets
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from mobile_sdk.system.secret_files import replace_secret

__all__ = ["LINK_SECONDS", "Role", "Session", "Sessions", "form_token"]

# An operator may change runs; a viewer sees them.
Role = Literal["operator", "viewer"]

# An address that nobody has used by then lets nobody in.
LINK_SECONDS = 600.0

SECRET_BYTES = 32

# Beyond, the oldest are forgotten: a script that asks for addresses fills no memory.
MOST = 1_000


@dataclasses.dataclass(frozen=True)
class Session:
    """
    Somebody who is logged in until the wall time ``expires_at``.

    ``by`` is the name that the audit log gets.
    """

    role: Role
    by: str
    expires_at: float


class Sessions:
    """
    Addresses and sessions, by the SHA-256 of their secrets: neither memory nor the file holds what lets one in.

    Args:
        clock: wall time.
        seconds: how long a session lasts.
        file: keeps sessions over a restart of the coordinator; none: they end with it.

    """

    def __init__(self, clock: Callable[[], float], seconds: float, file: Path | None = None) -> None:
        self._clock = clock
        self._seconds = seconds
        self._file = file
        self._links: dict[str, Session] = {}
        self._sessions: dict[str, Session] = {}
        self._saving = threading.Lock()
        if file is not None and file.exists():
            self._sessions = _read(file)

    def link(self, role: Role, by: str) -> str:
        """The secret of an address that lets somebody in once, within ``LINK_SECONDS``."""
        return _put(self._links, Session(role, by, self._clock() + LINK_SECONDS))

    def redeem(self, secret: str) -> str | None:
        """A session for the secret of an address, which is good no more; none if it was not."""
        link = self._links.pop(_digest(secret), None)
        return None if link is None or link.expires_at <= self._clock() else self.open(link.role, link.by)

    def open(self, role: Role, by: str) -> str:
        """The secret of a new session. It is kept by :meth:`save`."""
        return _put(self._sessions, Session(role, by, self._clock() + self._seconds))

    def find(self, secret: str) -> Session | None:
        """The session of a secret; none if there is none, or no more."""
        session = self._sessions.get(_digest(secret))
        return session if session is not None and session.expires_at > self._clock() else None

    def close(self, secret: str) -> None:
        """End a session."""
        self._sessions.pop(_digest(secret), None)

    def save(self) -> None:
        """
        Write the sessions that last into the file. Blocks.

        Raises:
            OSError: if it cannot be written.

        """
        if self._file is None:
            return
        with self._saving:
            now = self._clock()
            # Others log in meanwhile, in the event loop: a copy of the table is made at once.
            sessions = list(self._sessions.items())
            kept = {name: dataclasses.asdict(each) for name, each in sessions if each.expires_at > now}
            replace_secret(self._file, json.dumps(kept).encode())


def form_token(secret: str) -> str:
    """What requests that change something must carry: a page of another site cannot know it."""
    return _digest("form " + secret)


def _put(table: dict[str, Session], session: Session) -> str:
    secret = secrets.token_urlsafe(SECRET_BYTES)
    table[_digest(secret)] = session
    if len(table) > MOST:
        del table[next(iter(table))]
    return secret


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode(errors="replace")).hexdigest()


def _read(file: Path) -> dict[str, Session]:
    """What :meth:`Sessions.save` wrote; nothing if it is damaged: people log in again."""
    try:
        return {name: Session(**each) for name, each in json.loads(file.read_bytes()).items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
