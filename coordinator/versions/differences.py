"""
Deltas between published versions, for devices that hold an earlier one.

A device states which version it holds whenever it asks for work; no per-device state is kept. Packed deltas are cached
in memory up to a limit, since many devices start from the same version.
"""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import hashlib
import threading
from collections.abc import Callable, Mapping, Sequence

from mobile_sdk.clock import Offload
from mobile_sdk.durable_files import map_file
from mobile_sdk.errors import PayloadError
from mobile_sdk.payload import make_difference
from mobile_sdk.protocol.messages import ArtifactRef, Difference, Hex, Sha256

from ..errors import StoreError
from ..store.interface import ArtifactFiles

__all__ = ["Downlink"]

# Packed differences in memory, for all devices together; what is known not to exist takes memory as well.
MOST_BYTES = 64_000_000
ENTRY_BYTES = 512

# A device holds one version, of a few files, the trained one last. One that claims to hold every version there is must
# not make the coordinator work out a difference from each: all others would wait meanwhile.
MOST_BASES = 8

# Answers that are remembered whole: devices that ask mostly hold one of the newest versions, or none.
MOST_ANSWERS = 256

# The files that a device has, and those that it shall have.
_Wanted = tuple[tuple[str, ...], tuple[str, ...]]
_Ways = Mapping[Difference, bytes]


@dataclasses.dataclass(frozen=True)
class _Packed:
    """A difference as it is sent."""

    artifact: ArtifactRef
    content: bytes


class Downlink:
    """
    Differences between the files of published versions.

    Args:
        artifacts: where the files are.

    """

    def __init__(self, artifacts: ArtifactFiles) -> None:
        self._artifacts = artifacts
        self._known: collections.OrderedDict[tuple[str, str], _Packed | None] = collections.OrderedDict()
        self._bytes = 0
        self._looking = threading.Lock()  # held for no longer than a look takes
        self._making = threading.Lock()  # who comes second finds what the first has made
        self._answers: dict[_Wanted, _Ways] = {}
        self._asked: dict[_Wanted, asyncio.Task[_Ways]] = {}

    async def find(self, holds: Sequence[str], weights: Sequence[ArtifactRef], offload: Offload) -> _Ways:
        """
        What :meth:`differences` gives, made once for all devices that ask for it meanwhile.

        Args:
            holds: the files that the device has.
            weights: the files that it shall have.
            offload: runs what blocks.

        """
        if (answer := self.known(holds, weights)) is not None:
            return answer
        # Whoever leaves does not stop it for the others.
        return await asyncio.shield(self._task(holds, weights, offload))

    def seek(self, holds: Sequence[str], weights: Sequence[ArtifactRef], offload: Offload) -> None:
        """Begin with what :meth:`find` will soon be asked for; arguments as there."""
        if self.known(holds, weights) is None:
            # What goes wrong goes wrong again, for whoever waits for it then.
            self._task(holds, weights, offload).add_done_callback(lambda task: task.cancelled() or task.exception())

    def _task(self, holds: Sequence[str], weights: Sequence[ArtifactRef], offload: Offload) -> asyncio.Task[_Ways]:
        wanted = tuple(holds), tuple([ref.sha256 for ref in weights])
        task = self._asked.get(wanted)
        if task is None:
            task = self._asked[wanted] = asyncio.create_task(self._answer(wanted, weights, offload))
        return task

    def known(self, holds: Sequence[str], weights: Sequence[ArtifactRef]) -> _Ways | None:
        """What :meth:`find` gives, if it was found before."""
        return self._answers.get((tuple(holds), tuple([ref.sha256 for ref in weights])))

    async def _answer(self, wanted: _Wanted, weights: Sequence[ArtifactRef], offload: Offload) -> _Ways:
        try:
            answer: _Ways = await offload(self.differences, wanted[0], weights)
        finally:
            del self._asked[wanted]
        while len(self._answers) >= MOST_ANSWERS or sum(map(_size, self._answers.values())) > MOST_BYTES:
            del self._answers[next(iter(self._answers))]
        self._answers[wanted] = answer
        return answer

    def differences(self, holds: Sequence[str], weights: Sequence[ArtifactRef]) -> _Ways:
        """
        The shortest ways to the files of a version, with their content; none where the file itself is shorter.

        Blocks.

        Args:
            holds: the files that the device has.
            weights: the files that it shall have.

        """
        with self._making:
            return _shortest(holds, weights, self._between)

    def _look(self, base: str, target: str) -> _Packed | None:
        with self._looking:
            self._known.move_to_end((base, target))
            return self._known[base, target]

    def _between(self, base: str, target: str) -> _Packed | None:
        try:
            return self._look(base, target)
        except KeyError:
            content = self._make(base, target)
        packed = None
        if content:
            packed = _Packed(ArtifactRef(Sha256(hashlib.sha256(content).hexdigest()), len(content)), content)
        with self._looking:
            self._known[base, target] = packed
            self._bytes += ENTRY_BYTES + len(content or b"")
            while self._bytes > MOST_BYTES and len(self._known) > 1:
                _, oldest = self._known.popitem(last=False)
                self._bytes -= ENTRY_BYTES + (0 if oldest is None else len(oldest.content))
        return packed

    def _make(self, base: str, target: str) -> bytes | None:
        try:
            old = map_file(self._artifacts.path(base)) if base else None
            return make_difference(old, map_file(self._artifacts.path(target)))
        except (StoreError, PayloadError, OSError, ValueError):  # pruned, or never one of ours
            return None


def _size(ways: _Ways) -> int:
    return sum(map(len, ways.values()))


def _shortest(
    holds: Sequence[str], weights: Sequence[ArtifactRef], between: Callable[[str, str], _Packed | None]
) -> dict[Difference, bytes]:
    """The shortest ways to ``weights``, of those that ``between`` gives from the last files, or from nothing."""
    found = {}
    for ref in weights:
        if ref.sha256 in holds:
            continue
        ways = [(base, way) for base in holds[-MOST_BASES:] if (way := between(base, ref.sha256))]
        if not ways:
            ways = [("", way) for way in (between("", ref.sha256),) if way]
        if ways:
            base, way = min(ways, key=lambda found: found[1].artifact.size)
            if way.artifact.size < ref.size:
                found[Difference(Sha256(ref.sha256), Hex(base), way.artifact)] = way.content
    return found
