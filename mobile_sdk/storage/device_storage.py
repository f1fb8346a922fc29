"""
What a device keeps over restarts: one folder, written so that a kill at any instant leaves it whole.

    device.json          name, secret, run, and the highest serial of programs seen
    usage.json           bytes moved today, where a policy limits them
    lock                 held while a client uses the folder
    artifacts/HASH       complete files; HASH.part what has come so far
    programs/HASH/       a verified program, by the hash of its manifest
    model.json           which program and weights are complete: what predictions are made with
    training.safetensors how far the training under way went
    update/              a finished update that is not yet acknowledged
    local.safetensors    what is trained for this device alone and never sent
    residual             what acknowledged updates left out, where the run sends the largest elements only

"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..durable_files import map_file, remove_leftovers, write_durably
from ..errors import StorageError
from ..system.locks import Locked, take_lock
from ..system.syncs import make_folder, sync_folder
from .artifacts import Artifacts
from .identity import Identity
from .pending_update import PendingUpdate, UpdateFolder

__all__ = ["DeviceStorage", "HeldModel"]

HASH_BYTES = 32


@dataclasses.dataclass(frozen=True)
class HeldModel:
    """A version that is here as a whole: the program's manifest and the files of weights, by hash."""

    version: int
    manifest: str
    weights: tuple[str, ...]


class DeviceStorage:
    """
    The folder of one device in one run, and the lock on it.

    Who the device is, is its ``identity``; files that come are its ``artifacts``; a finished update is in ``update``.

    Args:
        folder: created if missing, readable by its owner alone.
        run: the run that this device takes part in.
        name: what to call a new device; made up at random if empty. An existing folder keeps its name.

    Raises:
        StorageError: if another process uses the folder, or it belongs to another run.

    """

    def __init__(self, folder: Path, run: str, name: str = "") -> None:
        self.folder = folder
        try:
            make_folder(folder, 0o700)
            for part in ("artifacts", "programs"):
                (folder / part).mkdir(exist_ok=True)
            self._lock = take_lock(folder / "lock")
        except Locked:
            raise StorageError(f"another process uses the folder {folder}: stop it, or choose another folder") from None
        except OSError as error:
            raise StorageError(f"cannot use the folder {folder}: {error}") from error
        try:
            self.identity = Identity(folder / "device.json", run, name)
        except BaseException:
            self.close()
            raise
        for place in (folder, folder / "programs", folder / "update"):
            remove_leftovers(place)
        self.artifacts = Artifacts(folder / "artifacts")
        self.update = UpdateFolder(folder / "update", folder / "residual")

    def close(self) -> None:
        """Let another process use the folder."""
        self._lock.close()

    def count_bytes(self, day: str, more: int) -> int:
        """
        Bytes moved on ``day`` so far, ``more`` included.

        A clock that jumps back does not make room for more: the bytes of the later day stay counted.
        """
        path = self.folder / "usage.json"
        try:
            data = json.loads(path.read_bytes())
            last, count = str(data["day"]), int(data["bytes"])
        except (OSError, ValueError, KeyError, TypeError):
            last, count = "", 0
        count = more if day > last else count + more
        if more or day != last:
            write_durably(path, json.dumps({"day": day, "bytes": count}).encode())
        return count

    def keep_artifacts(self, wanted: Iterable[str]) -> None:
        """Remove artifacts and parts that are neither among the hashes ``wanted`` nor of the model that is held."""
        model = self.model()
        self.artifacts.keep({*wanted, *(model.weights if model else ())})

    # Programs.

    def program_folder(self, manifest_sha256: str) -> Path | None:
        """The folder of an installed program, if it is here."""
        path = self.folder / "programs" / manifest_sha256
        return path if path.exists() else None

    def remove_program(self, manifest_sha256: str) -> None:
        """Forget an installed program."""
        shutil.rmtree(self.folder / "programs" / manifest_sha256, ignore_errors=True)

    def install_program(self, manifest_sha256: str, files: Mapping[str, bytes]) -> Path:
        """Write a verified program's files."""
        target = self.folder / "programs" / manifest_sha256
        temporary = target.with_name(target.name + ".new")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        for name, content in files.items():
            write_durably(temporary / name, content)
        temporary.replace(target)
        sync_folder(target.parent)
        return target

    # The model that predictions are made with.

    def model(self) -> HeldModel | None:
        """The newest version that is here as a whole, if there is one and its files are."""
        try:
            data = json.loads((self.folder / "model.json").read_bytes())
            model = HeldModel(int(data["version"]), str(data["manifest"]), tuple(str(w) for w in data["weights"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None
        whole = self.program_folder(model.manifest) and all(self.artifacts.find(sha256) for sha256 in model.weights)
        return model if whole else None

    def remember_model(self, model: HeldModel) -> None:
        """Note that a version is here as a whole; programs and weights of the one before are removed."""
        if model != self.model():
            write_durably(self.folder / "model.json", json.dumps(dataclasses.asdict(model)).encode())
        for other in (self.folder / "programs").iterdir():
            if other.name != model.manifest:
                shutil.rmtree(other)
        self.keep_artifacts(())

    # The training under way.

    def save_training(self, content: Sequence[bytes | memoryview]) -> None:
        """Keep how far a training went, in pieces."""
        content = [*content]
        digest = hashlib.sha256()
        for piece in content:
            digest.update(piece)
        write_durably(self._training, *content, digest.digest())

    def training(self) -> memoryview | None:
        """What :meth:`save_training` kept, mapped; none if there is none, or it is damaged."""
        with contextlib.suppress(OSError, ValueError):  # an empty file cannot be mapped
            mapped = map_file(self._training)
            content, digest = mapped[:-HASH_BYTES], mapped[-HASH_BYTES:]
            if hashlib.sha256(content).digest() == digest:
                return content
        return None

    def drop_training(self) -> None:
        """It is finished, or given back: neither its checkpoint nor the room for its update is needed."""
        self._training.unlink(missing_ok=True)
        self.update.release()

    @property
    def _training(self) -> Path:
        return self.folder / "training.safetensors"

    # The finished update.

    def save_update(
        self, assignment: str, content: Sequence[bytes | memoryview], report: Mapping[str, Any], residual: bytes = b""
    ) -> PendingUpdate:
        """As :meth:`UpdateFolder.save`; the training that it came from is over."""
        update = self.update.save(assignment, content, report, residual)
        self.drop_training()
        return update

    # What is this device's alone.

    def save_local(self, content: bytes) -> None:
        """Keep the weights of what is trained for this device alone."""
        write_durably(self.folder / "local.safetensors", content)

    def local(self) -> Path | None:
        """Their file, if there is one."""
        path = self.folder / "local.safetensors"
        return path if path.exists() else None
