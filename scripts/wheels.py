"""
The SDK's wheels for every system, from one Linux machine without a compiler: PyPI's ziglang has one for all of them.

ExecuTorch's libraries for Linux were made with GCC's C++ library, whose headers ziglang has not: they come from
Debian's packages, unpacked in a folder. For macOS ziglang has all.

    python -m scripts.wheels [--out DIST] [x86_64] [aarch64] [macos] [pure]

builds those that are named, by default all, checks what each asks of its system, and prints their sizes. It needs the
``wheels`` extra (ziglang and lief); ExecuTorch's libraries for the other systems are fetched with pip, their hashes as
pinned. What was fetched is kept in build.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shlex
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from mobile_sdk.manifest import EXECUTORCH_VERSION
from mobile_sdk.native.build import EXECUTORCH_STEMS, target

from .debian import unpack
from .wheel_checks import check

__all__ = ["TARGETS", "build"]

ROOT = Path(__file__).resolve().parents[1]
SDK = ROOT / "mobile_sdk"
KEPT = ROOT / "build" / "executorch"
# Name: pip's name of the system, the suffix of its libraries, and Debian's architecture for GCC's C++ library.
SYSTEMS = {
    "x86_64": ("manylinux_2_28_x86_64", ".so", "amd64"),
    "aarch64": ("manylinux_2_28_aarch64", ".so", "arm64"),
    "macos": ("macosx_14_0_arm64", ".dylib", ""),
}
TARGETS = (*SYSTEMS, "pure")


def build(name: str, out: Path) -> Path:
    """
    Build the wheel for one of :data:`TARGETS` into ``out`` and check it.

    Returns:
        The wheel's file.

    Raises:
        SystemExit: with a sentence, if a part is missing or the wheel asks for what its system does not have.

    """
    if name == "pure":
        environment = {"FTTE_NATIVE": "0"}
    else:
        unpacked = executorch(name)
        library = unpacked / "executorch" / "lib" / f"{EXECUTORCH_STEMS[0]}{SYSTEMS[name][1]}"
        compiler = [sys.executable, "-m", "ziglang", "c++", "-target", target(library), *_gcc_library(name)]
        environment = {"FTTE_NATIVE": "1", "FTTE_EXECUTORCH": str(unpacked), "CXX": shlex.join(compiler)}
    with tempfile.TemporaryDirectory() as folder:
        _pip("wheel", "--no-build-isolation", "--no-deps", "--no-cache-dir", "-w", folder, str(SDK), **environment)
        (built,) = Path(folder).glob("*.whl")
        out.mkdir(parents=True, exist_ok=True)
        wheel = out / built.name
        wheel.write_bytes(built.read_bytes())
    faults = check(wheel)
    if faults:
        raise SystemExit("\n".join(f"{wheel.name}: {fault}" for fault in faults))
    return wheel


def _gcc_library(name: str) -> list[str]:
    """The compiler's options for GCC's C++ library in place of ziglang's own, where ExecuTorch has it."""
    architecture = SYSTEMS[name][2]
    if not architecture:
        return []
    root = unpack(architecture, "bookworm", ["libstdc++-12-dev"])
    triplet = f"{name}-linux-gnu"
    headers = (root / "usr/include/c++/12", root / "usr/include" / triplet / "c++/12")
    libraries = (root / "usr/lib" / triplet / "libstdc++.so.6", root / "usr/lib" / triplet / "libgcc_s.so.1")
    # GCC's headers take this one where it is there; ziglang's refuses to be taken for a glibc before 2.32. The runtime
    # defines the variable itself (native/calls.cpp).
    single = root / "before-2.32"
    (single / "sys").mkdir(parents=True, exist_ok=True)
    (single / "sys/single_threaded.h").write_text('#pragma once\nextern "C" char __libc_single_threaded;\n')
    # Before the C headers, which they include next.
    includes = [f"-I{folder}" for folder in (single, *headers)]
    return ["-nostdinc++", "-nostdlib++", *includes, *map(str, libraries)]


def executorch(name: str) -> Path:
    """
    The folder of ExecuTorch's unpacked wheel for a system, fetched if it is not kept.

    Raises:
        SystemExit: if pip cannot fetch it.

    """
    folder = KEPT / f"{EXECUTORCH_VERSION}-{name}"
    if not (folder / f"executorch-{EXECUTORCH_VERSION}.dist-info").is_dir():
        with tempfile.TemporaryDirectory() as download:
            _pip(
                *("download", "--no-deps", "--require-hashes", "--only-binary=:all:", "--implementation=cp"),
                *("--python-version=3.11", f"--platform={SYSTEMS[name][0]}", "-d", download),
                *("-r", str(SDK / "native" / "executorch.txt")),
            )
            (wheel,) = Path(download).glob("executorch-*.whl")
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(folder)
    return folder


def _pip(*words: str, **environment: str) -> None:
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *words]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"pip {words[0]} failed:\n{done.stdout}{done.stderr}")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m scripts.wheels", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    parser.add_argument("--out", type=Path, default=Path("dist"), help="folder of the wheels (dist)")
    options = parser.parse_args()
    unknown = set(options.targets) - set(TARGETS)
    if unknown:
        parser.error(f"there is no target {', '.join(sorted(unknown))}, only {', '.join(TARGETS)}")
    if importlib.util.find_spec("ziglang") is None:
        raise SystemExit("ziglang is missing: pip install -e '.[wheels]'")
    for name in options.targets or TARGETS:
        wheel = build(name, options.out)
        print(f"{wheel.stat().st_size / 1e6:5.1f} MB  {wheel}", flush=True)


if __name__ == "__main__":
    main()
