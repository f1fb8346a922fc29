"""The finished update that is not acknowledged yet, and what acknowledged ones left out."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..durable_files import map_file, reserve_space, write_durably
from ..protocol.messages import ArtifactRef, Sha256
from ..system.syncs import sync_folder

__all__ = ["PendingUpdate", "UpdateFolder"]


@dataclasses.dataclass(frozen=True)
class PendingUpdate:
    """A finished update: the assignment it answers, its artifact, and the report that goes with it."""

    assignment: str
    artifact: ArtifactRef
    report: Mapping[str, Any]


class UpdateFolder:
    """
    Holds at most one update until it is acknowledged.

    Args:
        folder: of the update; there only while there is one.
        residual: the file of what acknowledged updates left out.

    """

    def __init__(self, folder: Path, residual: Path) -> None:
        self._folder = folder
        self._residual = residual

    def reserve(self, size: int) -> None:
        """
        Keep ``size`` bytes of the disk free for the update that is about to be trained; :meth:`save` takes them.

        Raises:
            OSError: if there is no room.

        """
        reserve_space(self._reserved, size)

    def release(self) -> None:
        """No update is being trained: give the reserved bytes back."""
        self._reserved.unlink(missing_ok=True)

    @property
    def _reserved(self) -> Path:
        return self._folder.with_name(self._folder.name + ".reserved")

    def save(
        self, assignment: str, content: Sequence[bytes | memoryview], report: Mapping[str, Any], residual: bytes = b""
    ) -> PendingUpdate:
        """
        Keep a finished update, in pieces, until it is acknowledged, and what it left out for the next one.

        Args:
            assignment: what it is an update of.
            content: the bytes of its safetensors file, in pieces.
            report: counts, loss and metrics of the training.
            residual: what packing left out; empty for nothing.

        """
        digest = hashlib.sha256()
        for piece in content:
            digest.update(piece)
        ref = ArtifactRef(Sha256(digest.hexdigest()), sum(len(piece) for piece in content))
        update = PendingUpdate(assignment, ref, report)
        folder = self._folder
        self.release()
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)
        write_durably(folder / ref.sha256, *content)
        if residual:
            write_durably(folder / "residual", residual)
        # The description is written last: without it the update does not exist.
        write_durably(folder / "update.json", json.dumps(dataclasses.asdict(update), allow_nan=False).encode())
        return update

    def pending(self) -> PendingUpdate | None:
        """The update that waits to be acknowledged; a damaged one is dropped, the work is done again."""
        folder = self._folder
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
        self.drop()
        return None

    def content(self, ref: ArtifactRef) -> memoryview:
        """The pending update's bytes, mapped."""
        return map_file(self._folder / ref.sha256)

    def accept(self) -> None:
        """The pending update was acknowledged: what it left out is for the next one."""
        with contextlib.suppress(FileNotFoundError):
            (self._folder / "residual").replace(self._residual)
        self.drop()

    def residual(self) -> bytes:
        """What acknowledged updates left out so far, as it was given to :meth:`save`; empty at first."""
        with contextlib.suppress(FileNotFoundError):
            return self._residual.read_bytes()
        return b""

    def drop(self) -> None:
        """Forget the pending update: it will never be accepted."""
        self.release()
        shutil.rmtree(self._folder, ignore_errors=True)
