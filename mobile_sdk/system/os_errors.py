"""What the operating system refuses, in one sentence with a remedy."""

from __future__ import annotations

import errno
import os

__all__ = ["describe_os_error"]

_REMEDIES = {
    errno.ENOSPC: "free some space, or choose another folder",
    errno.EDQUOT: "free some of your quota, or choose another folder",
    errno.EACCES: "choose a folder that you may write to",
    errno.EPERM: "choose a folder that you may write to",
    errno.EROFS: "choose a folder that can be written to",
    errno.ENOENT: "make the folder first, or choose another one",
    errno.ENOTDIR: "a file is where a folder is wanted; choose another path",
    errno.EISDIR: "a folder is where a file is wanted; choose another path",
    errno.EMFILE: "raise the limit of open files, with `ulimit -n`",
    errno.ENAMETOOLONG: "choose a shorter path",
}


def describe_os_error(error: OSError) -> str:
    """
    One sentence: the path, the system's words, and what to do.

    Args:
        error: what a call of the system has raised; with its number, or with words of its own alone.

    """
    if error.errno is None:
        return str(error) or type(error).__name__
    words = error.strerror or os.strerror(error.errno)
    sentence = (
        f"cannot use {os.fsdecode(error.filename)}: {words}" if isinstance(error.filename, str | bytes) else words
    )
    remedy = _REMEDIES.get(error.errno)
    return f"{sentence}; {remedy}" if remedy else sentence
