"""How many files and connections this process may have open."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

__all__ = ["TooFewFiles", "allow_open_files", "open_file_limits"]

if sys.platform != "win32":
    import resource

# Windows has no limit that a process could ask for; its handles end where memory does.
_UNLIMITED = sys.maxsize


class TooFewFiles(Exception):
    """The system allows fewer open files than are needed; ``allowed`` says how many."""

    def __init__(self, allowed: int) -> None:
        super().__init__(f"the system allows {allowed} open files")
        self.allowed = allowed


def open_file_limits() -> tuple[int, int]:
    """How many files may be open now, and how many at most if the process asks for more."""
    if sys.platform == "win32":
        return _UNLIMITED, _UNLIMITED
    else:
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        now, at_most = (_UNLIMITED if limit == resource.RLIM_INFINITY else limit for limit in limits)
        return now, at_most


@contextlib.contextmanager
def allow_open_files(wanted: int) -> Iterator[None]:
    """
    Let this process have ``wanted`` files open for as long as the context lasts.

    Raises:
        TooFewFiles: if the system allows fewer.

    """
    soft, hard = open_file_limits()
    if soft >= wanted:
        yield
        return
    if hard < wanted:
        raise TooFewFiles(hard)
    if sys.platform != "win32":
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
