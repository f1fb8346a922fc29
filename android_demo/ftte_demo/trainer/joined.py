"""The run that this phone takes part in, kept over restarts."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from mobile_sdk.errors import FtteError
from mobile_sdk.invite import Invite
from mobile_sdk.system.secret_files import replace_secret

__all__ = ["Joined", "forget", "load", "save"]


@dataclasses.dataclass(frozen=True)
class Joined:
    """An accepted invitation; ``budget`` is bytes of memory for training, 0 for no limit."""

    invite: Invite
    insecure: bool = False
    budget: int = 0


def save(path: Path, joined: Joined) -> None:
    """Write it down, readable by this app alone: it may hold a token."""
    data = {"link": str(joined.invite), "insecure": joined.insecure, "budget": joined.budget}
    replace_secret(path, json.dumps(data).encode())


def load(path: Path) -> Joined | None:
    """What was saved; none if nothing was, or it is damaged."""
    try:
        data = json.loads(path.read_text("utf-8"))
        return Joined(Invite.parse(data["link"]), bool(data["insecure"]), int(data["budget"]))
    except (OSError, ValueError, KeyError, TypeError, FtteError):
        return None


def forget(path: Path) -> None:
    """The phone left the run."""
    path.unlink(missing_ok=True)
