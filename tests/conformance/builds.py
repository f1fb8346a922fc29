"""
ExecuTorch as others build it, in the wheel's runtime.

The published archives for Android and Apple compile XNNPACK's weight cache and a workspace for all programs in
(``tools/cmake/preset/android.cmake`` and ``apple_common.cmake``), the wheel does not. Both are options of the delegate,
so that one runtime can be either.

``python -m tests.conformance.builds FOLDER`` compiles what that needs for another machine, with ``CXX`` and
``FTTE_EXECUTORCH`` as :mod:`mobile_sdk.native.build` takes them.
"""

from __future__ import annotations

import ctypes
import dataclasses
import functools
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mobile_sdk.native import library

__all__ = ["ARCHIVE_FROM_FILES", "ARCHIVE_MAPPED", "WHEEL", "Build", "missing", "running"]

HERE = Path(__file__).parent
READY = os.environ.get("FTTE_BUILDS")
# Modes of sharing a workspace, as XNNPACKBackend.h numbers them.
ALONE, PER_PROGRAM, GLOBAL = 0, 1, 2


@dataclasses.dataclass(frozen=True)
class Build:
    """A build's options, and whether an app loads programs into memory instead of mapping them."""

    weight_cache: bool
    workspace_sharing: int
    from_files: bool = False

    def __str__(self) -> str:
        sharing = {ALONE: "alone", PER_PROGRAM: "per program", GLOBAL: "global"}[self.workspace_sharing]
        cache = "cache" if self.weight_cache else "no cache"
        return f"{cache}, {sharing}, {'from files' if self.from_files else 'mapped'}"


WHEEL = Build(weight_cache=False, workspace_sharing=GLOBAL)
ARCHIVE_MAPPED = Build(weight_cache=True, workspace_sharing=GLOBAL)
ARCHIVE_FROM_FILES = Build(weight_cache=True, workspace_sharing=GLOBAL, from_files=True)


def missing() -> str:
    """What this machine lacks to be another build than its own, as a sentence; empty if nothing."""
    if READY is not None:
        return ""
    if shutil.which(os.environ.get("CXX", "c++")) is None:
        return "other builds of ExecuTorch need a C++ compiler: apt-get install g++"
    if importlib.util.find_spec("executorch") is None:
        return "other builds of ExecuTorch need its headers: pip install executorch"
    return ""


@contextmanager
def running(build: Build) -> Iterator[None]:
    """Programs that are loaded meanwhile, in any engine of this process, run as in ``build``."""
    _set(build)
    original = library.LIBRARY
    jvm = sys.modules.get("tests.android.jvm")
    if build.from_files:
        library.LIBRARY = _folder() / "from_files" / original.name
        library._library.cache_clear()
    if jvm is not None:
        jvm.load_from_files(build.from_files)
    try:
        yield
    finally:
        if build.from_files:
            library.LIBRARY = original
            library._library.cache_clear()
        if jvm is not None:
            jvm.load_from_files(False)
        _set(WHEEL)


def _set(build: Build) -> None:
    code = _options().set_options(build.weight_cache, build.workspace_sharing)
    if code:
        raise RuntimeError(f"XNNPACK's delegate refuses the options of {build} with {code}")


@functools.cache
def _options() -> ctypes.CDLL:
    library._library()  # its copy of ExecuTorch is the one whose options are set
    options = ctypes.CDLL(str(_folder() / "liboptions.so"))
    options.set_options.argtypes = [ctypes.c_bool, ctypes.c_int]
    return options


@functools.cache
def _folder() -> Path:
    if READY is not None:
        return Path(READY)
    folder = Path(tempfile.mkdtemp(prefix="ftte-builds-"))
    compile_to(folder)
    return folder


def compile_to(folder: Path) -> None:
    """Compile the setter of options, and a native runtime that reads programs from files."""
    from mobile_sdk.native import build

    build.build(folder / "from_files", ["FTTE_LOAD_MODE=File"])
    include = _package() / "include"
    command = [
        os.environ.get("CXX", "c++"), "-std=c++17", "-O1", "-fPIC", "-shared", "-w",
        str(HERE / "options.cpp"), "-o", str(folder / "liboptions.so"),
        f"-I{include}", f"-I{include / 'executorch/runtime/core/portable_type/c10'}",
        "-DC10_USING_CUSTOM_GENERATED_MACROS", f"-L{folder / 'from_files'}", "-lexecutorch",
    ]  # fmt: skip
    outcome = subprocess.run(command, check=False, capture_output=True, text=True)
    if outcome.returncode != 0:
        raise RuntimeError(f"the options of ExecuTorch's delegate do not compile:\n{outcome.stderr}")


def _package() -> Path:
    unpacked = os.environ.get("FTTE_EXECUTORCH")
    if unpacked is not None:
        return Path(unpacked) / "executorch"
    spec = importlib.util.find_spec("executorch")
    if spec is None or not spec.submodule_search_locations:
        raise RuntimeError(missing())
    return Path(next(iter(spec.submodule_search_locations)))


if __name__ == "__main__":
    compile_to(Path(sys.argv[1]))
