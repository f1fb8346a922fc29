"""What the disk of a state directory refuses, as one error that says what to do."""

from __future__ import annotations

import errno
import sqlite3

from mobile_sdk.system.os_errors import describe_os_error

from ..errors import StoreUnavailable

__all__ = ["disk_error"]

_SPACE = "free some space there, and whatever waits goes on by itself"
_WRITABLE = "make it and its files writable for this user, and whatever waits goes on by itself"
# By SQLite's primary result codes.
_REMEDIES = {
    sqlite3.SQLITE_FULL: _SPACE,
    sqlite3.SQLITE_READONLY: _WRITABLE,
    sqlite3.SQLITE_CANTOPEN: _WRITABLE,
    sqlite3.SQLITE_IOERR: "look whether its disk is full or failing",
}


def disk_error(error: OSError | sqlite3.OperationalError) -> StoreUnavailable:
    """
    The error to raise in place of ``error``: a full disk, a read-only one and the like; nothing has changed then.

    Args:
        error: of the system, or of SQLite.

    """
    if isinstance(error, OSError):
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        words = f"{error.strerror or error}; {_SPACE}" if full else describe_os_error(error)
    else:
        # The lowest byte of an extended code is the primary one; errors that Python raises by itself have none.
        remedy = _REMEDIES.get(getattr(error, "sqlite_errorcode", 0) & 0xFF)
        words = f"{error}; {remedy}" if remedy else str(error)
    return StoreUnavailable(f"the state directory cannot be used just now: {words}")
