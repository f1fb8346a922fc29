"""
Install the pinned torch into the environment whose Python runs this: its build for CPUs where there is one to be had.

On Linux, PyPI's build of torch brings CUDA, several gigabytes that FTTE does not use. PyTorch's own index has a
build without. ``FTTE_TORCH`` chooses:

* unset: the CPU build, from PyTorch's index or where else pip looks; PyPI's where none can be reached
* ``pypi``: what pip's own sources have
* an index's URL, or a folder of wheels: the CPU build from there, and no other
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

__all__ = ["CPU_INDEX", "VERSION", "install"]

VERSION = "2.13.0"
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
# To find out whether there is a CPU build: an index that cannot be reached must not hold up the installation.
_QUICK = ("--timeout=5", "--retries=0")
_PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check")
# What only the build with CUDA depends on.
_OF_CUDA = re.compile("nvidia|cuda|triton")


def install(choice: str = "", index: str = CPU_INDEX) -> str:
    """
    Install torch and say which it is.

    Args:
        choice: value of ``FTTE_TORCH``.
        index: where the CPU build is looked for when nothing is chosen.

    Returns:
        A sentence: which build came, how large it is, and how to have the other.

    Raises:
        SystemExit: if no torch can be installed, or a source that was chosen has no CPU build.

    """
    if _installed() is None:
        # What pip is told of already, first: asking an index that cannot be reached takes its time.
        sources = [_source(choice)] if choice else [(), _source(index)]
        # Elsewhere than on Linux, PyPI's build is without CUDA.
        wanted = choice != "pypi" and (choice != "" or sys.platform == "linux")
        source = next(filter(_offers_cpu_build, sources), None) if wanted else None
        if source is not None:
            _run("install", *source, f"torch=={VERSION}+cpu")
        elif choice not in ("", "pypi"):
            raise SystemExit(
                f"make: FTTE_TORCH={choice} has no torch {VERSION}+cpu for this Python: correct or unset it"
            )
        else:
            _run("install", f"torch=={VERSION}")
    return _describe()


def _source(place: str) -> tuple[str, ...]:
    return ("--find-links", place) if Path(place).is_dir() else ("--extra-index-url", place)


def _offers_cpu_build(source: Sequence[str]) -> bool:
    command = (*_PIP, "index", "versions", *_QUICK, *source, "torch")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return re.search(rf"[ (]{re.escape(VERSION)}\+cpu\b", done.stdout) is not None


def _run(*arguments: str) -> None:
    print(f"make: downloading torch {VERSION} and installing it: this takes minutes", file=sys.stderr, flush=True)
    # Not quiet: it downloads for minutes, and shows how far it is.
    done = subprocess.run((*_PIP, *arguments), stdout=sys.stderr, check=False)
    if done.returncode != 0:
        raise SystemExit(f"make: pip could not install torch {VERSION}: see what it says above")


def _installed() -> str | None:
    """The version of torch that is installed, if it is the pinned one."""
    done = subprocess.run((*_PIP, "show", "torch"), capture_output=True, text=True, check=False)
    found = re.search(r"^Version: (\S+)$", done.stdout, re.MULTILINE)
    return found[1] if found is not None and found[1].partition("+")[0] == VERSION else None


def _describe() -> str:
    importlib.invalidate_caches()
    cuda = [each for each in importlib.metadata.distributions() if _OF_CUDA.match(each.name.lower())]
    torch = importlib.metadata.distribution("torch")
    size = sum(_size(each) for each in (torch, *cuda))
    build = f"PyPI's, with {len(cuda)} packages of CUDA" if cuda else "without CUDA"
    other = (
        f"for the build without CUDA run `make clean setup FTTE_TORCH={CPU_INDEX}`, or name a folder with its wheel"
        if cuda
        else "for PyPI's build run `make clean setup FTTE_TORCH=pypi`"
    )
    return f"make: torch {torch.version} ({build}), {size / 1e9:.2f} GB; {other}"


def _size(distribution: importlib.metadata.Distribution) -> int:
    """Bytes of all its files."""
    paths = [Path(str(distribution.locate_file(each))) for each in distribution.files or ()]
    return sum(path.stat().st_size for path in paths if path.is_file())


if __name__ == "__main__":
    print(install(os.environ.get("FTTE_TORCH", "")))
