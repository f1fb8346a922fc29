"""
How many threads numpy's matrix products use.

OpenBLAS takes a thread per processor and lets them spin; next to other work that makes small products a hundred times
slower. It can be told at run time only through its own functions, which numpy does not offer: they are looked up in the
library that numpy has loaded. Other libraries are left as they are.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
from collections.abc import Callable, Iterator
from pathlib import Path

__all__ = ["limited"]

_PREFIXES = ("scipy_openblas", "openblas")
_SUFFIXES = ("64_", "")


@contextlib.contextmanager
def limited(threads: int) -> Iterator[None]:
    """Products inside use ``threads`` threads; afterwards as many as before."""
    functions = _functions()
    if functions is None:
        yield
        return
    get, put = functions
    before = get()
    if before != threads:
        put(threads)
    try:
        yield
    finally:
        if before != threads:
            put(before)


@functools.cache
def _functions() -> tuple[Callable[[], int], Callable[[int], None]] | None:
    """OpenBLAS's getter and setter, if numpy stands on it."""
    try:
        lines = Path("/proc/self/maps").read_text().splitlines()
    except OSError:
        return None
    for path in sorted({line.split(maxsplit=5)[5] for line in lines if "openblas" in line}):
        with contextlib.suppress(OSError):
            library = ctypes.CDLL(path)
            for prefix in _PREFIXES:
                for suffix in _SUFFIXES:
                    get = getattr(library, f"{prefix}_get_num_threads{suffix}", None)
                    put = getattr(library, f"{prefix}_set_num_threads{suffix}", None)
                    if get is not None and put is not None:
                        return get, put
    return None
