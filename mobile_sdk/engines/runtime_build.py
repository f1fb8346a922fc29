"""Which build of which runtime is loaded, as far as a process can tell."""

from __future__ import annotations

import hashlib
import platform
from pathlib import Path

import numpy as np

from ..manifest import EXECUTORCH_VERSION

__all__ = ["interpreter", "mapped_build"]

_MAPS = Path("/proc/self/maps")


def mapped_build(engine: str) -> str:
    """
    Names the files that the runtime's code was loaded from, by their sizes and times.

    ExecuTorch's Android archive cannot be asked for its version (neither its Java classes nor its library has it), and
    an app may put another in than the SDK was made for. But its code is mapped into the process: from a library, or
    from the app's package. With another app or another archive those are other files.
    """
    digest = hashlib.sha256()
    for path in sorted(_runtime_files()):
        try:
            facts = Path(path).stat()
        except OSError:  # it was replaced since it was mapped
            continue
        digest.update(f"{Path(path).name} {facts.st_size} {facts.st_mtime_ns}\n".encode())
    return f"{engine} {platform.machine()} ExecuTorch {EXECUTORCH_VERSION} build {digest.hexdigest()[:12]}"


def interpreter() -> str:
    """The interpreter is numpy."""
    return f"interpreted {platform.machine()} numpy {np.__version__}"


def _runtime_files() -> set[str]:
    try:
        lines = _MAPS.read_text(errors="replace").splitlines()
    except OSError:
        return set()  # another system than Linux
    paths = {line.split(None, 5)[5] for line in lines if line.count("/")}
    return {path for path in paths if "executorch" in Path(path).name or path.endswith(".apk")}
