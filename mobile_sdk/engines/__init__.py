"""Engines run a program's methods on numpy arrays."""

from __future__ import annotations

from pathlib import Path

from ..errors import ProgramError
from ..manifest import ENGINE_FILES, MANIFEST_FILE, Manifest
from ..native.library import LIBRARY
from ..signing import check_files, check_runtime
from ..system.support import runs_native_programs
from .base import Engine

__all__ = ["Engine", "default_engine", "load_engine"]


def default_engine() -> str:
    """
    The name of the fastest engine that this SDK has for this system: ``"native"`` or ``"interpreted"``.

    An SDK that was built without the runtime (``FTTE_NATIVE=0``) has the interpreted one alone.
    """
    return "native" if runs_native_programs() and LIBRARY.exists() else "interpreted"


def load_engine(folder: str | Path, engine: str | None = None, threads: int = 1) -> Engine:
    """
    Load the program in a local folder.

    Its files must be what the manifest says; the signature is not asked for, since the folder is the
    caller's own. What a coordinator sends goes through :func:`mobile_sdk.signing.verify_program` instead.

    Args:
        folder: holds ``manifest.json`` and the files that it lists.
        engine: ``"native"``, ExecuTorch's C++ runtime; ``"android"``, ExecuTorch's Android archive; or
            ``"interpreted"``, numpy. None: :func:`default_engine`.
        threads: threads of the pool that all engines of the process share.

    Raises:
        ProgramRejected: if a file is missing or altered, or the program is for another ExecuTorch.
        ProgramError: if it cannot be loaded for another reason.

    """
    folder = Path(folder)
    engine = engine or default_engine()
    try:
        manifest = Manifest.from_bytes((folder / MANIFEST_FILE).read_bytes())
    except OSError as error:
        raise ProgramError(f"no program in {folder}: {error}") from error
    if engine not in ENGINE_FILES:
        raise ProgramError(f"unknown engine {engine!r}; there are {', '.join(sorted(ENGINE_FILES))}")
    check_runtime(manifest, engine)
    check_files(manifest, folder, engine)
    # Each is imported where it is wanted: others may run where one of them cannot.
    if engine == "native":
        from .native import NativeEngine

        return NativeEngine(folder, manifest, threads=threads)
    if engine == "interpreted":
        from .interpreted import InterpretedEngine

        return InterpretedEngine(folder, manifest, threads=threads)
    from .android import AndroidEngine

    return AndroidEngine(folder, manifest, threads=threads)
