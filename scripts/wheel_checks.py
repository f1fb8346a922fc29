"""What a wheel of the SDK asks of its system: all of it must be in the wheel, or be the system's own."""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lief

__all__ = ["check"]

lief.logging.disable()  # it remarks on what ziglang's linker leaves out, and is right about the rest

RUNTIME = "libftte_runtime"
# What every glibc system of the wheel's tag has, and what ExecuTorch's wheels ask for besides.
_LINUX_OWN = {
    *("libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0", "librt.so.1", "libgcc_s.so.1", "libstdc++.so.6"),
    *("ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1"),
}
_MACOS_OWN = ("/usr/lib/", "/System/Library/Frameworks/")


def check(wheel: Path) -> list[str]:
    """What is wrong with the wheel, as sentences; a wheel without a runtime has nothing to check."""
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
        libraries = {path.name: path for path in Path(folder).rglob("native/lib/*") if path.suffix in (".so", ".dylib")}
        if not libraries:
            return [] if wheel.name.endswith("-none-any.whl") else ["it has no runtime"]
        elf = {name: lief.ELF.parse(path) for name, path in libraries.items() if path.suffix == ".so"}
        # Each file owns what is in it, for one machine here: it has to stay.
        files: dict[str, Any] = {
            name: lief.MachO.parse(path) for name, path in libraries.items() if path.suffix == ".dylib"
        }
        return [*_check_elf(elf), *_check_macho({name: file.at(0) for name, file in files.items()})]


def _check_elf(libraries: dict[str, Any]) -> Iterator[str]:
    given = {symbol.name for library in libraries.values() for symbol in library.exported_symbols}
    for name, library in libraries.items():
        paths = [str(path) for entry in library.dynamic_entries for path in getattr(entry, "paths", [])]
        if not paths or any(path != "$ORIGIN" and not path.startswith("$ORIGIN/") for path in paths):
            yield f"{name} looks for libraries in {paths}, not beside itself alone"
        for needed in library.libraries:
            if needed not in libraries and needed not in _LINUX_OWN:
                yield f"{name} needs {needed}, which neither the wheel nor every system has"
        for symbol in library.imported_symbols:
            # The system's own have a version of its libraries; weak ones may be missing.
            versioned = symbol.has_version and symbol.symbol_version.has_auxiliary_version
            if symbol.name and not versioned and not _is_weak(symbol) and symbol.name not in given:
                yield f"{name} asks for {symbol.name}, which nothing in the wheel has"
    yield from _check_needs(libraries, ".so", [str(name) for name in _runtime(libraries, ".so", "libraries")])


def _is_weak(symbol: Any) -> bool:
    return bool(symbol.binding == lief.ELF.Symbol.BINDING.WEAK)


def _check_macho(libraries: dict[str, Any]) -> Iterator[str]:
    given = {name: {symbol.name for symbol in library.exported_symbols} for name, library in libraries.items()}
    for name, library in libraries.items():
        paths = [rpath.path for rpath in library.rpaths]
        if any(not path.startswith("@loader_path") for path in paths):
            yield f"{name} looks for libraries in {paths}, not beside itself alone"
        if not library.has_code_signature:
            yield f"{name} is not signed, and arm64 loads nothing that is not: at least ad hoc"
        for needed in library.libraries:
            if Path(needed.name).name not in libraries and not needed.name.startswith(_MACOS_OWN):
                yield f"{name} needs {needed.name}, which neither the wheel nor macOS has"
        for symbol in library.imported_symbols:
            if not symbol.has_binding_info or not symbol.binding_info.has_library:
                continue
            source = Path(symbol.binding_info.library.name).name
            if source in given and symbol.name not in given[source]:
                yield f"{name} asks {source} for {symbol.name}, which it does not have"
    needs = [Path(str(needed.name)).name for needed in _runtime(libraries, ".dylib", "libraries")]
    yield from _check_needs(libraries, ".dylib", needs)


def _runtime(libraries: dict[str, Any], suffix: str, field: str) -> Any:
    runtime = libraries.get(f"{RUNTIME}{suffix}")
    return getattr(runtime, field) if runtime is not None else []


def _check_needs(libraries: dict[str, Any], suffix: str, needs: list[str]) -> Iterator[str]:
    """Kernels and backend register themselves when they are loaded, so the runtime has to name them."""
    for name in libraries:
        if not name.startswith(RUNTIME) and name not in needs:
            yield f"{RUNTIME}{suffix} does not load {name}"
