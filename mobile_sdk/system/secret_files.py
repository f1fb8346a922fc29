"""Files that only their owner may read: keys, tokens, devices' secrets."""

from __future__ import annotations

import os
from pathlib import Path

from .syncs import sync_file, sync_folder

__all__ = ["create_secret", "replace_secret"]

# What Windows calls a binary file; elsewhere there is no other kind.
_BINARY = getattr(os, "O_BINARY", 0)


def create_secret(path: Path, content: bytes) -> None:
    """
    Write a new file that nobody else can read at any instant, durably.

    Its mode is 0600 from the start: a file that is made first and closed off later could be opened in between. On
    Windows the folder's access list decides.

    Raises:
        FileExistsError: if there is one already.
        OSError: if it cannot be written; nothing is left then.

    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _BINARY, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            sync_file(file.fileno())
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def replace_secret(path: Path, content: bytes) -> None:
    """
    Replace a secret file atomically: after this returns, a power cut leaves the new content, before it the old.

    Raises:
        OSError: if it cannot be written; the old file stays then.

    """
    temporary = path.with_name(path.name + ".new")
    temporary.unlink(missing_ok=True)  # of a process that was killed
    create_secret(temporary, content)
    temporary.replace(path)
    sync_folder(path.parent)
