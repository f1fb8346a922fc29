"""
Compile the native runtime into ``mobile_sdk/native/lib``.

``python mobile_sdk/native/build.py`` builds for development; ``setup.py`` calls :func:`build` for the
wheel. The libraries of ExecuTorch that the runtime needs are copied next to it, so a device needs no
executorch package (which would bring torch along).

Without an installed executorch package the wheel's build fetches the pinned one of ``executorch.txt`` with pip, for its
headers and libraries alone: its dependencies (torch among them) are not needed.

For another machine, ``FTTE_EXECUTORCH`` names the folder of an unpacked executorch wheel for it, and ``CXX`` a compiler
to it; ``scripts/aarch64.sh`` does both.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

__all__ = ["BuildError", "build", "platform_tag"]

HERE = Path(__file__).resolve().parent
OUTPUT = HERE / "lib"
PINNED = "executorch.txt"
LIBRARY = "libftte_runtime.so"
SOURCES = tuple(sorted(HERE.glob("*.cpp")))

# ELF's numbers of the machines that executorch has wheels for.
_MACHINES = {62: "x86_64", 183: "aarch64"}

# Order matters to the linker: the kernels and the backend register themselves when they are loaded.
EXECUTORCH_LIBRARIES = (
    "libexecutorch.so",
    "libexecutorch_threadpool.so",
    "libexecutorch_kernels_optimized.so",
    "libexecutorch_backend_xnnpack.so",
)


class BuildError(Exception):
    """Something that the build needs is missing or of another version."""


def build(output: Path = OUTPUT, definitions: Sequence[str] = (), *, fetch: bool = False) -> None:
    """
    Compile the runtime into ``output`` and copy ExecuTorch's libraries and licence there.

    Args:
        output: a folder, made if missing.
        definitions: macros, as ``NAME=VALUE``; ``FTTE_LOAD_MODE=File`` makes a runtime that does not map programs.
        fetch: whether to fetch executorch with pip where no package is installed.

    Raises:
        BuildError: if the system, the compiler or the executorch package does not fit.

    """
    if not sys.platform.startswith("linux"):
        raise BuildError(f"the native runtime is built on Linux only, not on {sys.platform}")
    compiler = os.environ.get("CXX", "c++")
    if shutil.which(compiler) is None:
        raise BuildError(f"the C++ compiler {compiler!r} is missing: install g++ or set CXX to a compiler of C++17")
    with tempfile.TemporaryDirectory(prefix="ftte-executorch-") as folder:
        package, version = _executorch(Path(folder) if fetch else None)
        _compile(compiler, package, version, output, definitions)


def _compile(compiler: str, package: Path, version: str, output: Path, definitions: Sequence[str]) -> None:
    output.mkdir(parents=True, exist_ok=True)
    for name in EXECUTORCH_LIBRARIES:
        shutil.copy2(package / "lib" / name, output / name)
    shutil.copy2(_licence(package), output / "LICENSE.executorch")
    shutil.copytree(HERE / "licences", output / "licences", dirs_exist_ok=True)
    include = package / "include"
    # Written aside and moved into place: a process that has the old library mapped keeps it.
    fresh = output / f"{LIBRARY}.new"
    command = [
        compiler, "-std=c++17", "-O2", "-shared", "-fPIC", "-fvisibility=hidden", "-Wall",
        *map(str, SOURCES), "-o", str(fresh),
        "-isystem", str(include), "-isystem", str(include / "executorch/runtime/core/portable_type/c10"),
        "-DC10_USING_CUSTOM_GENERATED_MACROS", f'-DFTTE_EXECUTORCH_VERSION="{version}"',
        *(f"-D{definition}" for definition in definitions),
        f"-L{output}", "-Wl,--no-as-needed",
        *(f"-l{name.removeprefix('lib').removesuffix('.so')}" for name in EXECUTORCH_LIBRARIES),
        "-Wl,--enable-new-dtags,-rpath,$ORIGIN", "-Wl,--no-undefined", "-Wl,--strip-all",
    ]  # fmt: skip
    outcome = subprocess.run(command, check=False, capture_output=True, text=True)
    if outcome.returncode != 0:
        raise BuildError(f"{compiler} could not compile the native runtime:\n{outcome.stderr}")
    fresh.replace(output / LIBRARY)


def platform_tag(folder: Path = OUTPUT) -> str:
    """
    The wheel's platform, from the C library that the built libraries in ``folder`` really ask for.

    ExecuTorch's wheel claims ``manylinux_2_28``, so nothing below that is promised.

    Raises:
        BuildError: if a library asks for a newer C++ library than that platform is sure to have.

    """
    glibc = 28
    for path in sorted(folder.glob("*.so")):
        listing = subprocess.run(["objdump", "-T", str(path)], check=True, capture_output=True, text=True).stdout
        glibc = max([glibc, *(int(minor) for minor in re.findall(r"\bGLIBC_2\.(\d+)", listing))])
        newest = max([0, *(int(patch) for patch in re.findall(r"\bGLIBCXX_3\.4\.(\d+)", listing))])
        # GCC 8's, the oldest that systems with glibc 2.28 carry.
        if newest > 25:
            raise BuildError(f"{path.name} needs GLIBCXX_3.4.{newest}: compile with an older g++ (set CXX)")
    return f"manylinux_2_{glibc}_{_machine(folder / LIBRARY)}"


def _executorch(download: Path | None) -> tuple[Path, str]:
    """
    Folder and version of the executorch package, found without importing it (that imports torch).

    Where none is installed it is fetched into ``download``, if that is given.
    """
    wanted = _paired_version()
    unpacked = os.environ.get("FTTE_EXECUTORCH")
    if unpacked is not None:
        if not (Path(unpacked) / f"executorch-{wanted}.dist-info").is_dir():
            raise BuildError(f"FTTE_EXECUTORCH={unpacked} is not an unpacked wheel of executorch {wanted}")
        return Path(unpacked) / "executorch", wanted
    spec = importlib.util.find_spec("executorch")
    if spec is None or not spec.submodule_search_locations:
        if download is not None:
            return _fetch(wanted, download), wanted
        raise BuildError(f"executorch is missing: pip install executorch=={wanted} first, or pip wheel ./mobile_sdk")
    version = importlib.metadata.version("executorch").partition("+")[0]
    if version != wanted:
        raise BuildError(f"executorch {version} is installed; programs are paired with {wanted}: install that one")
    return Path(next(iter(spec.submodule_search_locations))), version


def _fetch(version: str, folder: Path) -> Path:
    """Download the wheel of executorch for this machine and unpack what the build needs into ``folder``."""
    pinned = (HERE / PINNED).read_text()
    if f"executorch=={version} " not in pinned:
        raise BuildError(f"mobile_sdk/native/{PINNED} pins another version than {version} of mobile_sdk/manifest.py")
    command = [
        *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"),
        # The pinned hashes are those of CPython 3.11's wheels, whatever Python builds.
        *("--only-binary=:all:", "--implementation=cp", "--python-version=3.11", "--require-hashes"),
        *("--dest", str(folder), "--requirement", str(HERE / PINNED)),
    ]
    outcome = subprocess.run(command, check=False, capture_output=True, text=True)
    if outcome.returncode != 0:
        raise BuildError(
            f"executorch {version} could not be fetched: install it first and build with --no-build-isolation, or let "
            f"FTTE_EXECUTORCH name the folder of its unpacked wheel\n{outcome.stderr.strip()}"
        )
    (wheel,) = folder.glob("executorch-*.whl")
    needed = ("executorch/include/", "executorch/lib/", f"executorch-{version}.dist-info/")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder, [name for name in archive.namelist() if name.startswith(needed)])
    wheel.unlink()
    return folder / "executorch"


def _paired_version() -> str:
    """Read from the source: importing the package here would need its dependencies at build time."""
    source = (HERE.parent / "manifest.py").read_text()
    found = re.search(r'^EXECUTORCH_VERSION = "([^"]+)"$', source, re.MULTILINE)
    if found is None:
        raise BuildError("mobile_sdk/manifest.py does not say EXECUTORCH_VERSION")
    return found[1]


def _licence(package: Path) -> Path:
    for path in package.parent.glob(f"executorch-{_paired_version()}*.dist-info/**/LICENSE"):
        return path
    raise BuildError("the executorch package has no licence text to pass on: reinstall it")


def _machine(library: Path) -> str:
    """The machine that a library is for, from its ELF header; this one while it is not built."""
    if not library.exists():  # an editable install asks before it builds
        return platform.machine()
    with library.open("rb") as file:
        number = int.from_bytes(file.read(20)[18:], "little")
    if number not in _MACHINES:
        raise BuildError(
            f"{library.name} is for the ELF machine {number}; programs run on {', '.join(_MACHINES.values())}"
        )
    return _MACHINES[number]


if __name__ == "__main__":
    try:
        build()
    except BuildError as error:
        sys.exit(f"error: {error}")
