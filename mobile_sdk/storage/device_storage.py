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
import secrets
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from ..durable_files import map_file, write_durably
from ..errors import PayloadError, StorageError
from ..payload import apply_difference
from ..protocol.auth import SECRET_BYTES
from ..protocol.messages import ArtifactRef, Sha256, is_name
from ..system.locks import Locked, take_lock
from ..system.secret_files import replace_secret
from ..system.syncs import sync_file, sync_folder

__all__ = ["DeviceStorage", "HeldModel", "PendingUpdate"]

HASH_BYTES = 32


@dataclasses.dataclass(frozen=True)
class PendingUpdate:
    """A finished update: the assignment it answers, its artifact, and the report that goes with it."""

    assignment: str
    artifact: ArtifactRef
    report: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class HeldModel:
    """A version that is here as a whole: the program's manifest and the files of weights, by hash."""

    version: int
    manifest: str
    weights: tuple[str, ...]


class DeviceStorage:
    """
    The folder of one device in one run.

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
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            for part in ("artifacts", "programs"):
                (folder / part).mkdir(exist_ok=True)
            self._lock = self._take_lock()
        except OSError as error:
            raise StorageError(f"cannot use the folder {folder}: {error}") from error
        try:
            self._identity = self._load_identity(run, name)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let another process use the folder."""
        self._lock.close()

    def _take_lock(self) -> IO[bytes]:
        try:
            return take_lock(self.folder / "lock")
        except Locked:
            raise StorageError(
                f"another process uses the folder {self.folder}: stop it, or choose another folder"
            ) from None

    def _load_identity(self, run: str, name: str) -> dict[str, Any]:
        path = self.folder / "device.json"
        if not path.exists():
            for what, text in (("run", run), ("device", name)):
                if text and not is_name(text):
                    raise StorageError(f"{text!r} cannot name a {what}: use letters, digits, '.', '-' and '_'")
            identity = {
                "run": run,
                "device": name or f"device-{secrets.token_hex(6)}",
                "secret": secrets.token_hex(SECRET_BYTES),
                "serial": 0,
                "enrolled": False,
            }
            self._write_identity(identity)
            return identity
        try:
            identity = json.loads(path.read_bytes())
            str(identity["run"]), str(identity["device"]), bytes.fromhex(identity["secret"]), int(identity["serial"])
        except (ValueError, KeyError, TypeError) as error:
            raise StorageError(f"{path} is damaged ({error}): remove it to enrol again as a new device") from error
        if identity["run"] != run:
            raise StorageError(f"the folder {self.folder} belongs to the run {identity['run']!r}, not {run!r}")
        return dict(identity)

    def _write_identity(self, identity: Mapping[str, Any]) -> None:
        replace_secret(self.folder / "device.json", json.dumps(identity, indent=1).encode())

    @property
    def device(self) -> str:
        """The device's name; fixed when the folder was created."""
        return str(self._identity["device"])

    @property
    def secret(self) -> bytes:
        """What this device answers challenges with."""
        return bytes.fromhex(self._identity["secret"])

    @property
    def enrolled(self) -> bool:
        """Whether a coordinator has let this device in before."""
        return bool(self._identity.get("enrolled"))

    def remember_enrolment(self) -> None:
        """The coordinator knows the secret: it is never sent again."""
        if not self.enrolled:
            self._identity["enrolled"] = True
            self._write_identity(self._identity)

    def trusted_key(self, pinned: str) -> str:
        """The key (hex) that has followed ``pinned``, or ``pinned`` itself."""
        follower = self._identity.get("followers", {}).get(pinned, pinned)
        return str(follower)

    def trust_key(self, pinned: str, key: str) -> None:
        """Remember that ``key`` follows ``pinned``: the older one is not trusted any more."""
        if key != self.trusted_key(pinned):
            self._identity["followers"] = {**self._identity.get("followers", {}), pinned: key}
            self._write_identity(self._identity)

    @property
    def serial(self) -> int:
        """The highest serial of programs that this device has accepted."""
        return int(self._identity["serial"])

    def raise_serial(self, serial: int) -> None:
        """Remember ``serial``: programs with a lower one are refused from now on."""
        if serial > self.serial:
            self._identity["serial"] = serial
            self._write_identity(self._identity)

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

    # Artifacts on their way down.

    def artifact(self, sha256: str) -> Path | None:
        """The complete file, if it is here."""
        path = self._artifact(sha256)
        return path if path.exists() else None

    def has_artifact(self, sha256: str) -> bool:
        """Whether the complete file is here and still what it was; a damaged one is removed."""
        path = self.artifact(sha256)
        if path is None:
            return False
        with path.open("rb") as file:
            good = hashlib.file_digest(file, "sha256").hexdigest() == sha256
        if not good:
            path.unlink()
        return good

    def partial_size(self, ref: ArtifactRef) -> int:
        """How many bytes have come; a part that is too long to be right is thrown away."""
        path = self._part(ref.sha256)
        size = path.stat().st_size if path.exists() else 0
        if size > ref.size:
            path.unlink()
            return 0
        return size

    def append(self, sha256: str, offset: int, data: bytes) -> None:
        """Write a chunk at ``offset``, the end of what has come."""
        with self._part(sha256).open("ab") as file:
            file.truncate(offset)
            file.write(data)

    def complete(self, sha256: str) -> bool:
        """Check the part's hash and make it an artifact; false, and the part is gone, if its hash is another."""
        part = self._part(sha256)
        with part.open("rb") as file:
            good = hashlib.file_digest(file, "sha256").hexdigest() == sha256
            if good:
                sync_file(file.fileno())
        if not good:
            part.unlink()
            return False
        part.replace(self._artifact(sha256))
        sync_folder(self.folder / "artifacts")
        return True

    def rebuild(self, base: str, difference: str, ref: ArtifactRef) -> bool:
        """
        Make the artifact ``ref`` of the artifact ``base`` (empty: of nothing) and a difference; false if it is another.

        The difference is not needed any more, either way.
        """
        part = self._part(ref.sha256)
        try:
            with part.open("wb") as output:
                old = map_file(self._artifact(base)) if base else None
                apply_difference(old, map_file(self._artifact(difference)), ref.size, output)
            good = self.complete(ref.sha256)
        except (PayloadError, FileNotFoundError):
            part.unlink(missing_ok=True)
            good = False
        self._artifact(difference).unlink(missing_ok=True)
        return good

    def keep_artifacts(self, wanted: Iterable[str]) -> None:
        """Remove artifacts and parts that are neither among the hashes ``wanted`` nor of the model that is held."""
        model = self.model()
        keep = {*wanted, *(model.weights if model else ())}
        for path in (self.folder / "artifacts").iterdir():
            if path.name.removesuffix(".part") not in keep:
                path.unlink()

    def _artifact(self, sha256: str) -> Path:
        return self.folder / "artifacts" / sha256

    def _part(self, sha256: str) -> Path:
        return self.folder / "artifacts" / f"{sha256}.part"

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
        whole = self.program_folder(model.manifest) and all(self.artifact(sha256) for sha256 in model.weights)
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
        """It is finished, or given back."""
        self._training.unlink(missing_ok=True)

    @property
    def _training(self) -> Path:
        return self.folder / "training.safetensors"

    # The finished update.

    def save_update(
        self, assignment: str, content: Sequence[bytes | memoryview], report: Mapping[str, Any], residual: bytes = b""
    ) -> PendingUpdate:
        """Keep a finished update, in pieces, until it is acknowledged, and what it left out for the next one."""
        digest = hashlib.sha256()
        for piece in content:
            digest.update(piece)
        ref = ArtifactRef(Sha256(digest.hexdigest()), sum(len(piece) for piece in content))
        update = PendingUpdate(assignment, ref, report)
        folder = self.folder / "update"
        folder.mkdir(exist_ok=True)
        sync_folder(self.folder)
        write_durably(folder / ref.sha256, *content)
        if residual:
            write_durably(folder / "residual", residual)
        # The description is written last: without it the update does not exist.
        write_durably(folder / "update.json", json.dumps(dataclasses.asdict(update), allow_nan=False).encode())
        self.drop_training()
        return update

    def pending_update(self) -> PendingUpdate | None:
        """The update that waits to be acknowledged; a damaged one is dropped, the work is done again."""
        folder = self.folder / "update"
        with contextlib.suppress(FileNotFoundError):
            try:
                data = json.loads((folder / "update.json").read_bytes())
                ref = ArtifactRef(**data["artifact"])
                with (folder / ref.sha256).open("rb") as file:
                    good = hashlib.file_digest(file, "sha256").hexdigest() == ref.sha256
                if good:
                    return PendingUpdate(str(data["assignment"]), ref, dict(data["report"]))
            except (ValueError, KeyError, TypeError):
                pass
        self.drop_update()
        return None

    def update_content(self, ref: ArtifactRef) -> memoryview:
        """The pending update's bytes, mapped."""
        return map_file(self.folder / "update" / ref.sha256)

    # What is this device's alone.

    def save_local(self, content: bytes) -> None:
        """Keep the weights of what is trained for this device alone."""
        write_durably(self.folder / "local.safetensors", content)

    def local(self) -> Path | None:
        """Their file, if there is one."""
        path = self.folder / "local.safetensors"
        return path if path.exists() else None

    def accept_update(self) -> None:
        """The pending update was acknowledged: what it left out is for the next one."""
        with contextlib.suppress(FileNotFoundError):
            (self.folder / "update" / "residual").replace(self.folder / "residual")
        self.drop_update()

    def residual(self) -> bytes:
        """What acknowledged updates left out so far, as it was given to :meth:`save_update`; empty at first."""
        with contextlib.suppress(FileNotFoundError):
            return (self.folder / "residual").read_bytes()
        return b""

    def drop_update(self) -> None:
        """Forget the pending update: it will never be accepted."""
        shutil.rmtree(self.folder / "update", ignore_errors=True)
