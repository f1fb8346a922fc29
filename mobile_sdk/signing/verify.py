"""
Which programs a device may run.

A program is code, so a device takes it only if the run's key signed exactly these bytes of the manifest
(:func:`signed_bytes`), the manifest is for this run and not older than what the device has, and every
file is the one that the manifest describes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from ..errors import ProgramRejected
from ..manifest import ENGINE_FILES, EXECUTORCH_VERSION, PROGRAM_FILE, FileEntry, Manifest
from . import ed25519

__all__ = ["check_files", "check_runtime", "check_signature", "signed_bytes", "verify_program"]

# Keeps a signature made for anything else from ever passing as one of a program.
SIGNING_PREFIX = b"ftte program v1\0"

Files = Mapping[str, bytes] | Path


def signed_bytes(manifest: bytes) -> bytes:
    """What the run's Ed25519 key signs for the exact bytes of ``manifest.json``."""
    return SIGNING_PREFIX + manifest


def verify_program(
    *,
    manifest: bytes,
    signature: bytes,
    files: Files,
    public_key: bytes,
    run: str,
    least_serial: int,
    engine: str = "native",
) -> Manifest:
    """
    The parsed manifest of a program that may be run.

    Args:
        manifest: the bytes of ``manifest.json``.
        signature: the 64 bytes of ``manifest.sig``.
        files: name -> content, or the folder where the files lie.
        public_key: the 32 bytes of the run's key, which the app pins.
        run: the run that the device takes part in.
        least_serial: the serial of the newest program that the device has seen; 0 at first.
        engine: which runs it; the files of other engines need not be there.

    Raises:
        ProgramRejected: if the program must not be run, saying why and what to do.
        ProgramError: if what was signed is not a manifest that this SDK understands.

    """
    check_signature(manifest, signature, public_key)
    parsed = Manifest.from_bytes(manifest)
    if parsed.run != run:
        raise ProgramRejected(
            f"the program is for the run {parsed.run!r}, not {run!r}: connect to the right coordinator"
        )
    if parsed.serial < least_serial:
        raise ProgramRejected(
            f"the program has the serial {parsed.serial}, but {least_serial} was seen before: "
            "the coordinator must offer the newest programs"
        )
    check_runtime(parsed, engine)
    check_files(parsed, files, engine)
    return parsed


def check_signature(manifest: bytes, signature: bytes, public_key: bytes) -> None:
    """
    The first thing to know of a program; nothing else in it may be believed before.

    Args:
        manifest: the exact bytes that were signed.
        signature: 64 bytes.
        public_key: the pinned key, 32 bytes.

    Raises:
        ProgramRejected: if the signature is not that of ``public_key`` over these bytes.

    """
    if not ed25519.verify(public_key, signed_bytes(manifest), signature):
        raise ProgramRejected(
            f"the program's signature ({len(signature)} bytes) does not fit the pinned key "
            f"{public_key.hex()[:16]}...: fetch the program again, or ask the operator which key the run has"
        )


def check_runtime(manifest: Manifest, engine: str) -> None:
    """
    Programs and ExecuTorch's runtimes are paired; a graph says itself what it needs.

    Raises:
        ProgramRejected: if the program was exported for another ExecuTorch.

    """
    if ENGINE_FILES[engine] == PROGRAM_FILE and manifest.executorch != EXECUTORCH_VERSION:
        raise ProgramRejected(
            f"the program is for ExecuTorch {manifest.executorch}, this SDK runs {EXECUTORCH_VERSION}: "
            "export it with that version, or install the SDK that fits"
        )


def check_files(manifest: Manifest, files: Files, engine: str) -> None:
    """
    Every file that ``manifest`` lists is there, with its size and SHA-256, but for those of other engines.

    Args:
        manifest: a manifest whose signature is right.
        files: a folder, or the content of each file by name.
        engine: the engine whose file is needed; those of others may be missing.

    Raises:
        ProgramRejected: naming the first file that is not.

    """
    others = {name for other, name in ENGINE_FILES.items() if name != ENGINE_FILES[engine]}
    if ENGINE_FILES[engine] not in manifest.files:
        raise ProgramRejected(f"the program has no {ENGINE_FILES[engine]!r}, which the engine {engine!r} runs")
    for name, entry in manifest.files.items():
        if name in others:
            continue
        # The manifest must not reach for files elsewhere on the device.
        if name in ("", ".", "..") or "/" in name or "\\" in name or "\0" in name:
            raise ProgramRejected(
                f"the manifest lists {name!r}, which is not a plain file name: export the program anew"
            )
        found = _entry_in(files, name)
        if found is None:
            raise ProgramRejected(f"the program lacks the file {name!r}: fetch it again")
        if found != entry:
            raise ProgramRejected(
                f"{name!r} is altered: {found.size} bytes with SHA-256 {found.sha256}, "
                f"not {entry.size} with {entry.sha256}: fetch it again"
            )


def _entry_in(files: Files, name: str) -> FileEntry | None:
    if not isinstance(files, Path):
        return FileEntry.of(files[name]) if name in files else None
    path = files / name
    if not path.is_file():
        return None
    with path.open("rb") as file:  # in chunks: a device may not have the memory for the whole file
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return FileEntry(digest, file.tell())
