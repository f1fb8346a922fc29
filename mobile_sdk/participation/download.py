"""Bring a program and weights onto the device: fetch what is missing, check everything, unpack."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from ..clock import Offload
from ..errors import PayloadError, ProgramRejected, ProtocolError
from ..manifest import ENGINE_FILES, MANIFEST_FILE, SIGNATURE_FILE, Manifest
from ..net.link import Link
from ..payload import unpack, unpack_text
from ..protocol.device_session import DeviceSession
from ..protocol.messages import ArtifactRef, Assign, Evaluate
from ..protocol.session import Received
from ..signing import check_signature, verify_program
from ..storage.artifacts import Artifacts
from ..storage.device_storage import DeviceStorage

__all__ = ["Downloads", "check_sizes", "install_program"]

# A broken or hostile coordinator must not fill the device.
MAX_ARTIFACT_BYTES = 256 * 1000 * 1000
# All files of an assignment together, with the shorter ways to them.
MAX_TOTAL_BYTES = 2 * MAX_ARTIFACT_BYTES


def check_sizes(refs: Iterable[ArtifactRef]) -> None:
    """
    Hold what was announced against the limits, before a byte of it is fetched or unpacked.

    Raises:
        ProtocolError: if an artifact is larger than ``MAX_ARTIFACT_BYTES``, or all together than ``MAX_TOTAL_BYTES``.

    """
    total = 0
    for ref in refs:
        if ref.size > MAX_ARTIFACT_BYTES:
            raise ProtocolError(f"an artifact of {ref.size} bytes was announced; the limit is {MAX_ARTIFACT_BYTES}")
        total += ref.size
    if total > MAX_TOTAL_BYTES:
        raise ProtocolError(f"artifacts of {total} bytes in all were announced; the limit is {MAX_TOTAL_BYTES}")


class Downloads:
    """
    The artifacts that come over one connection.

    Args:
        link: the open connection.
        artifacts: where they are kept; what is there already is not fetched, a part is continued.
        offload: runs what touches files.
        progress: called with (bytes here, bytes in all) of the artifact on its way.

    """

    def __init__(
        self, link: Link[DeviceSession], artifacts: Artifacts, offload: Offload, progress: Callable[[int, int], None]
    ) -> None:
        self._link = link
        self._artifacts = artifacts
        self._offload = offload
        self._progress = progress

    async def start(self, ref: ArtifactRef) -> bool:
        """
        Ask for what is missing of an artifact; true if it is complete and nothing was asked for.

        Raises:
            ProtocolError: if the artifact is larger than any that this SDK takes.

        """
        check_sizes([ref])
        if await self._offload(self._artifacts.has, ref.sha256):
            return True
        offset = await self._offload(self._artifacts.partial_size, ref)
        if offset == ref.size:
            if await self._offload(self._artifacts.complete, ref.sha256):
                return True
            offset = 0
        self._link.session.fetch(ref, offset)
        await self._link.flush()
        return False

    async def receive(self, ref: ArtifactRef, event: Received) -> bool:
        """
        Write a chunk down and acknowledge it; true when the artifact is complete and its hash is right.

        Raises:
            ProtocolError: if the whole artifact has another hash.

        """
        chunk = event.chunk
        await self._offload(self._artifacts.append, chunk.sha256, chunk.offset, chunk.data)
        received = chunk.offset + len(chunk.data)
        self._link.session.acknowledge(chunk.sha256, received)
        await self._link.flush()
        self._progress(received, ref.size)
        if not event.last:
            return False
        if not await self._offload(self._artifacts.complete, ref.sha256):
            raise ProtocolError(f"artifact {ref.sha256} came with another hash")
        return True


def install_program(
    storage: DeviceStorage, assign: Assign | Evaluate, *, public_key: bytes, run: str, engine: str = "native"
) -> Path:
    """
    Verify the downloaded program of an assignment and install it, with the file that ``engine`` runs.

    Args:
        storage: where the artifact lies and the program goes.
        assign: names program, manifest and signature.
        public_key: the run's, 32 bytes.
        run: the run's name, which the manifest must have.
        engine: whose file of the program is installed.

    Returns:
        The folder that :func:`~mobile_sdk.load_engine` takes.

    Raises:
        ProgramRejected: if it is unsigned, altered, of another run or older than what was accepted before.
        ProtocolError: if the copy that was installed before is of no use any more; it is gone, so that the
            next try fetches it.

    """
    signature = bytes.fromhex(assign.signature)
    name = ENGINE_FILES[engine]

    def verify(manifest: bytes, program: bytes) -> None:
        verified = verify_program(
            manifest=manifest,
            signature=signature,
            files={name: program},
            public_key=public_key,
            run=run,
            least_serial=storage.identity.serial,
            engine=engine,
        )
        storage.identity.raise_serial(verified.serial)

    installed = storage.program_folder(assign.manifest.sha256)
    if installed is not None:
        try:
            verify((installed / MANIFEST_FILE).read_bytes(), (installed / name).read_bytes())
        except (OSError, ProgramRejected) as error:
            # Damaged on this device, perhaps: what the coordinator has decides.
            storage.remove_program(assign.manifest.sha256)
            raise ProtocolError(f"the installed program is fetched again: {error}") from error
        return installed
    try:
        manifest = unpack_text(_read(storage, assign.manifest), assign.manifest.encoding)
    except PayloadError as error:
        raise ProgramRejected(f"the manifest is damaged: {error}") from error
    check_signature(manifest, signature, public_key)  # before its word for the program's size is taken
    program = _unpack(storage, assign, manifest, name)
    verify(manifest, program)
    files = {name: program, SIGNATURE_FILE: signature, MANIFEST_FILE: manifest}
    return storage.install_program(assign.manifest.sha256, files)


def _read(storage: DeviceStorage, ref: ArtifactRef) -> bytes:
    path = storage.artifacts.find(ref.sha256)
    if path is None:
        raise ProtocolError(f"artifact {ref.sha256} is not here")
    return path.read_bytes()


def _unpack(storage: DeviceStorage, assign: Assign | Evaluate, manifest: bytes, name: str) -> bytes:
    packed = _read(storage, assign.program)
    entry = Manifest.from_bytes(manifest).files.get(name)
    if entry is None:
        raise ProgramRejected(f"the program has no {name!r}, which this device's engine runs: export it anew")
    size = entry.size
    if not 1 <= size <= MAX_ARTIFACT_BYTES:
        raise ProgramRejected(f"the program has {size} bytes; it must be 1 to {MAX_ARTIFACT_BYTES}")
    try:
        return unpack(packed, assign.program.encoding, size)
    except PayloadError as error:
        raise ProgramRejected(f"the program is damaged: {error}") from error
