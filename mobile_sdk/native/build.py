"""
Compile the native runtime into ``mobile_sdk/native/lib``.

``python mobile_sdk/native/build.py`` builds for development; ``setup.py`` calls :func:`build` for the
wheel. The libraries of ExecuTorch that the runtime needs are copied next to it, so a device needs no
executorch package (which would bring torch along).

Without an installed executorch package the wheel's build fetches the pinned one of ``executorch.txt`` with pip, for its
headers and libraries alone: its dependencies (torch among them) are not needed.

The compiler is ``CXX``, else the system's ``c++``, else on macOS that of PyPI's ziglang (for Linux, ExecuTorch's
libraries are made with GCC's C++ library, whose headers ziglang has not). For another machine, ``FTTE_EXECUTORCH``
names the folder of an unpacked executorch wheel for it, and ``CXX`` a compiler to it with its options;
``scripts/wheels.py`` does both.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

__all__ = ["SOURCES", "BuildError", "build", "harness_flags", "has_compiler", "platform_tag", "target"]

HERE = Path(__file__).resolve().parent
OUTPUT = HERE / "lib"
PINNED = "executorch.txt"
STEM = "libftte_runtime"
SOURCES = tuple(sorted(HERE.glob("*.cpp")))
# The compiler of PyPI's ziglang, as the build asks for it.
ZIGLANG = "ziglang==0.17.1"

# Order matters to the linker: the kernels and the backend register themselves when they are loaded.
EXECUTORCH_STEMS = (
    "libexecutorch",
    "libexecutorch_threadpool",
    "libexecutorch_kernels_optimized",
    "libexecutorch_backend_xnnpack",
)

# ELF's numbers of the machines that executorch has wheels for.
_ELF_MACHINES = {62: "x86_64", 183: "aarch64"}
# The oldest C library that ExecuTorch's wheels for Linux promise to run with: glibc 2.28.
_GLIBC = 28
# The C++ library of GCC 8, the oldest that systems with that glibc carry.
_GLIBCXX = 25
_MACOS = "14.0"


class _Format(NamedTuple):
    """A system's kind of library: its ``suffix``, and what the linker is told before and after ExecuTorch's."""

    suffix: str
    before: tuple[str, ...]
    after: tuple[str, ...]


_FORMATS = (
    # Without --no-as-needed the libraries that only register themselves would not be loaded.
    _Format(
        ".so",
        ("-Wl,--no-as-needed",),
        ("-Wl,--enable-new-dtags,-rpath,$ORIGIN", "-Wl,--no-undefined", "-Wl,--strip-all"),
    ),
    # What is undefined is an error on macOS, and every library that is named is loaded.
    _Format(".dylib", (), ("-Wl,-rpath,@loader_path", f"-Wl,-install_name,@rpath/{STEM}.dylib", "-Wl,-x")),
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
    _check_chosen_compiler()
    with tempfile.TemporaryDirectory(prefix="ftte-executorch-") as folder:
        package, version = _executorch(Path(folder) if fetch else None)
        form = _format(package)
        compiler = _compiler(target(package / "lib" / f"{EXECUTORCH_STEMS[0]}{form.suffix}"))
        _compile(compiler, form, package, version, output, definitions)


def has_compiler() -> bool:
    """Whether ``CXX`` is set or the system's ``c++`` works; a build without them needs :data:`ZIGLANG`."""
    return bool(os.environ.get("CXX")) or _works("c++")


def _works(compiler: str) -> bool:
    # macOS has a c++ that only says what to install.
    found = shutil.which(compiler)
    return found is not None and subprocess.run([found, "--version"], check=False, capture_output=True).returncode == 0


def _check_chosen_compiler() -> None:
    chosen = shlex.split(os.environ.get("CXX", ""))
    if chosen and shutil.which(chosen[0]) is None:
        raise BuildError(f"the C++ compiler {chosen[0]!r} is missing: install g++ or set CXX to a compiler of C++17")


def _compiler(target: str) -> list[str]:
    """The command of the compiler, for ``target`` if it has to be told."""
    chosen = os.environ.get("CXX")
    if chosen:
        return shlex.split(chosen)
    if _works("c++"):
        return ["c++"]
    if "linux" in target:
        raise BuildError("the C++ compiler 'c++' is missing: install g++ or set CXX to a compiler of C++17")
    if importlib.util.find_spec("ziglang") is None:
        raise BuildError(f"a C++ compiler is missing: `xcode-select --install`, or `pip install {ZIGLANG}`, or set CXX")
    return [sys.executable, "-m", "ziglang", "c++", "-target", target]


def _format(package: Path) -> _Format:
    """Of the libraries in an executorch package, which is for one system."""
    for form in _FORMATS:
        if (package / "lib" / f"{EXECUTORCH_STEMS[0]}{form.suffix}").exists():
            return form
    raise BuildError(f"the executorch package in {package} has no runtime for this system: build with FTTE_NATIVE=0")


def target(library: Path) -> str:
    """
    What ziglang calls the system that ``library`` is for, such as ``aarch64-linux-gnu.2.28``.

    Raises:
        BuildError: if programs do not run on that machine.

    """
    machine = _machine(library)
    return f"{machine}-macos.{_MACOS}" if library.suffix == ".dylib" else f"{machine}-linux-gnu.2.{_GLIBC}"


def _compile(
    compiler: Sequence[str], form: _Format, package: Path, version: str, output: Path, definitions: Sequence[str]
) -> None:
    output.mkdir(parents=True, exist_ok=True)
    for stem in EXECUTORCH_STEMS:
        shutil.copy2(package / "lib" / f"{stem}{form.suffix}", output / f"{stem}{form.suffix}")
    shutil.copy2(_licence(package), output / "LICENSE.executorch")
    shutil.copytree(HERE / "licences", output / "licences", dirs_exist_ok=True)
    # Written aside and moved into place: a process that has the old library mapped keeps it.
    fresh = output / f"{STEM}{form.suffix}.new"
    command = [
        *compiler, "-std=c++17", "-O2", "-shared", "-fPIC", "-fvisibility=hidden", "-Wall",
        *map(str, SOURCES), "-o", str(fresh),
        *_headers(package, version), *(f"-D{definition}" for definition in definitions),
        *_libraries(output, form), *form.after,
    ]  # fmt: skip
    environment = os.environ | {"MACOSX_DEPLOYMENT_TARGET": _MACOS}
    outcome = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    if outcome.returncode != 0:
        raise BuildError(f"{compiler[0]} could not compile the native runtime:\n{outcome.stderr}")
    fresh.replace(output / f"{STEM}{form.suffix}")


def harness_flags(libraries: Path = OUTPUT) -> list[str]:
    """
    What a compiler needs to build a program from :data:`SOURCES`, with ExecuTorch's ``libraries``.

    Raises:
        BuildError: if the executorch package is missing or of another version.

    """
    package, version = _executorch(None)
    linked = _libraries(libraries, _format(package))
    return [*_headers(package, version), f"-I{HERE}", *linked, f"-Wl,-rpath,{libraries}"]


def _headers(package: Path, version: str) -> list[str]:
    include = package / "include"
    return [
        "-isystem", str(include), "-isystem", str(include / "executorch/runtime/core/portable_type/c10"),
        "-DC10_USING_CUSTOM_GENERATED_MACROS", f'-DFTTE_EXECUTORCH_VERSION="{version}"',
    ]  # fmt: skip


def _libraries(folder: Path, form: _Format) -> list[str]:
    return [f"-L{folder}", *form.before, *(f"-l{stem.removeprefix('lib')}" for stem in EXECUTORCH_STEMS)]


def platform_tag(folder: Path = OUTPUT) -> str:
    """
    The wheel's platform, from what the built libraries in ``folder`` really ask for.

    ExecuTorch's wheels claim glibc 2.28 and macOS 14, so nothing below that is promised.

    Raises:
        BuildError: if a library asks for a newer C++ library than that platform is sure to have.

    """
    libraries = sorted(path for form in _FORMATS for path in folder.glob(f"*{form.suffix}"))
    if any(path.suffix == ".dylib" for path in libraries):
        return f"macosx_{_MACOS.replace('.', '_')}_{_machine(folder / f'{STEM}.dylib').replace('aarch64', 'arm64')}"
    glibc = _GLIBC
    for path in libraries:
        content = path.read_bytes()
        # Names of versions are texts of the dynamic string table.
        glibc = max([glibc, *(int(minor) for minor in re.findall(rb"\0GLIBC_2\.(\d+)(?:\.\d+)?(?=\0)", content))])
        newest = max([0, *(int(patch) for patch in re.findall(rb"\0GLIBCXX_3\.4\.(\d+)(?=\0)", content))])
        if newest > _GLIBCXX:
            raise BuildError(f"{path.name} needs GLIBCXX_3.4.{newest}: compile with an older g++ (set CXX)")
    return f"manylinux_2_{glibc}_{_machine(folder / f'{STEM}.so')}"


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
    """The machine that a library is for, from its header; that of this process while it is not built."""
    if not library.exists():  # an editable install asks before it builds
        return platform.machine().replace("arm64", "aarch64")
    with library.open("rb") as file:
        header = file.read(20)
    if header[:4] == b"\x7fELF":
        number = int.from_bytes(header[18:20], "little")
        if number in _ELF_MACHINES:
            return _ELF_MACHINES[number]
    elif header[:8] == b"\xcf\xfa\xed\xfe\x0c\0\0\1":  # a 64-bit Mach-O file for arm64
        return "aarch64"
    raise BuildError(f"{library.name} is for another machine than programs run on: x86-64 and 64-bit ARM")


if __name__ == "__main__":
    try:
        build()
    except BuildError as error:
        sys.exit(f"error: {error}")
