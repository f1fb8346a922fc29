"""The conductor's store as a gateway sees it: each call is a question; every method blocks, and is for threads."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from ..errors import StoreUnavailable
from ..store.records import AssignmentRecord, DeviceRecord, Enrolment, VersionRecord
from .copies import Copies
from .pipe import Pipe

__all__ = ["RemoteStore"]


class _Questions:
    """Asks about one run, from any thread."""

    def __init__(self, pipe: Pipe, run: str) -> None:
        self._pipe = pipe
        self._run = run
        self._loop = asyncio.get_running_loop()

    def ask(self, kind: str, **values: Any) -> dict[str, Any]:
        question = self._pipe.ask({"m": kind, "r": self._run, **values})
        return asyncio.run_coroutine_threadsafe(question, self._loop).result()


class Artifacts(Protocol):
    """Files of the run. Methods block."""

    def path(self, sha256: str) -> Path:
        """Where a file is on this machine. Raises :exc:`StoreError` if there is none of this hash."""
        ...

    def verified(self, sha256: str) -> Path:
        """Where a file is, after its hash was checked."""
        ...


class _LocalArtifacts:
    """Files of the run, which lie on this machine or are brought here by the conductor."""

    def __init__(self, questions: _Questions, folder: Path) -> None:
        self._questions = questions
        self._folder = folder

    def path(self, sha256: str) -> Path:
        path = self._folder / sha256
        return path if path.exists() else Path(self._questions.ask("artifact", sha256=sha256, verify=False)["path"])

    def verified(self, sha256: str) -> Path:
        return Path(self._questions.ask("artifact", sha256=sha256, verify=True)["path"])


class _CopiedArtifacts:
    """Files of the run, which are copied from the conductor's machine to this one."""

    def __init__(self, questions: _Questions, copies: Copies) -> None:
        self._questions = questions
        self._copies = copies

    def path(self, sha256: str) -> Path:
        return self._copies.path(sha256, self._pieces)

    verified = path  # nothing is kept whose hash was not checked

    def _pieces(self, sha256: str) -> Iterator[bytes]:
        offset, size = 0, 1
        while offset < size:
            piece = self._questions.ask("piece", sha256=sha256, offset=offset)
            size, content = piece["size"], piece["content"]
            if not content and offset < size:
                raise StoreUnavailable(f"the conductor's copy of {sha256} ends at byte {offset} of {size}")
            offset += len(content)
            yield content


class _Devices:
    def __init__(self, questions: _Questions) -> None:
        self._questions = questions

    def secret(self, device: str) -> bytes | None:
        secret = self._questions.ask("secret", device=device)["secret"]
        return None if secret is None else bytes.fromhex(secret)

    def find(self, device: str) -> DeviceRecord | None:
        found = self._questions.ask("device", device=device)["device"]
        return None if found is None else DeviceRecord(device, "", 0, 0, 0, {}, revoked_at=found["revoked_at"])

    def enrol(self, device: str, secret: bytes, at: float, *, token: str | None = None) -> Enrolment:
        answer = self._questions.ask("enrol", device=device, secret=secret.hex(), token=token)
        enrolment: Enrolment = answer["enrolment"]
        return enrolment

    def add_failure(self, device: str) -> None:
        self._questions.ask("add_failure", device=device)

    def add_traffic(self, device: str, bytes_up: int, bytes_down: int) -> None:
        """Nothing: the conductor adds it up when the connection ends."""

    def seen(self, device: str, at: float, profile: Mapping[str, Any] | None = None) -> None:
        """Nothing, as above."""


class _Assignments:
    def __init__(self, questions: _Questions) -> None:
        self._questions = questions

    def find(self, assignment: str) -> AssignmentRecord | None:
        found = self._questions.ask("assignment", assignment=assignment)["record"]
        return None if found is None else AssignmentRecord(**found)

    def close(self, assignment: str) -> None:
        self._questions.ask("close_assignment", assignment=assignment)


class _Versions:
    def __init__(self, questions: _Questions) -> None:
        self._questions = questions

    def get(self, number: int) -> VersionRecord:
        """A version's record, without its files."""
        said = self._questions.ask("version_record", version=number)
        return VersionRecord(number, said["parent"], (), {}, said["at"], pruned=said["pruned"])


class _Updates:
    def __init__(self, questions: _Questions) -> None:
        self._questions = questions

    def is_accepted(self, assignment: str) -> bool:
        return bool(self._questions.ask("is_accepted", assignment=assignment)["accepted"])


@dataclasses.dataclass(frozen=True)
class RemoteStore:
    """What connections need of a :class:`~coordinator.store.interface.Store`."""

    artifacts: Artifacts
    devices: _Devices
    versions: _Versions
    assignments: _Assignments
    updates: _Updates

    @classmethod
    def of(cls, pipe: Pipe, run: str, artifacts: Path | Copies) -> RemoteStore:
        """
        The store of a run; to be called in the event loop of ``pipe``.

        Args:
            pipe: to the conductor.
            run: the run's name.
            artifacts: the folder where the run's files are; or where copies of them are kept.

        """
        questions = _Questions(pipe, run)
        files: Artifacts = (
            _LocalArtifacts(questions, artifacts)
            if isinstance(artifacts, Path)
            else _CopiedArtifacts(questions, artifacts)
        )
        return cls(
            files,
            _Devices(questions),
            _Versions(questions),
            _Assignments(questions),
            _Updates(questions),
        )
