"""The run's programs, ready to be given out: one tier per memory budget."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from mobile_sdk.errors import Refused
from mobile_sdk.manifest import ENGINE_FILES, GRAPH_FILE, PROGRAM_FILE, Manifest
from mobile_sdk.payload import unpack, unpack_text
from mobile_sdk.protocol.messages import ArtifactRef, Ready
from mobile_sdk.sizes import format_bytes

from ..store.interface import ArtifactFiles, Store
from ..store.records import TierRecord

__all__ = ["Tier", "choose_tier", "load_tiers", "pick_tier", "unpacked_manifest", "unpacked_program"]


@dataclasses.dataclass(frozen=True)
class Tier:
    """
    A program with its parsed manifest; ``positions`` says where its update belongs in the weight vector.

    ``state_copies`` counts the optimiser's numbers per trained element, of which one is part of what was measured.
    """

    record: TierRecord
    manifest: Manifest
    positions: npt.NDArray[np.int64]
    served: ArtifactRef | None = None
    state_copies: int = 1

    @property
    def name(self) -> str:
        """The tier's name in the run file."""
        return self.record.name

    @property
    def needs_bytes(self) -> int:
        """Memory that a device needs for it: the measured one, and the state of an optimiser that keeps more."""
        return self.manifest.memory.measured_bytes + max(self.state_copies - 1, 0) * self.update_bytes

    @property
    def program(self) -> ArtifactRef:
        """What a device downloads: ExecuTorch's program, or what :meth:`serving` put in its place."""
        return self.served or self.record.program

    def serving(self, engine: str) -> Tier | None:
        """The same tier for a device with this engine; none if its exporter wrote no file for it."""
        if ENGINE_FILES.get(engine) != GRAPH_FILE:
            return self
        return dataclasses.replace(self, served=self.record.graph) if self.record.graph else None

    @property
    def update_bytes(self) -> int:
        """Bytes of the float32 arrays of an update."""
        return 4 * len(self.positions)


def load_tiers(store: Store, state_copies: int = 1) -> list[Tier]:
    """The tiers of the run, smallest first, for an optimiser with so many numbers per trained element."""
    tiers = []
    for record in store.tiers():
        manifest, positions = _read_manifest(unpacked_manifest(store.artifacts, record))
        tiers.append(Tier(record, manifest, positions, state_copies=state_copies))
    return sorted(tiers, key=lambda tier: tier.needs_bytes)


@functools.lru_cache(16)  # who stands by has read the manifests when it leads
def _read_manifest(content: bytes) -> tuple[Manifest, npt.NDArray[np.int64]]:
    """A manifest, and the positions of what its program trains."""
    manifest = Manifest.from_bytes(content)
    positions = manifest.subset.positions()
    positions.flags.writeable = False
    return manifest, positions


def unpacked_manifest(artifacts: ArtifactFiles, record: TierRecord) -> bytes:
    """
    A tier's manifest, as it was signed.

    Raises:
        StoreError: if it is damaged on the disk.

    """
    return unpack_text(artifacts.verified(record.manifest.sha256).read_bytes(), record.manifest.encoding)


def unpacked_program(artifacts: ArtifactFiles, record: TierRecord) -> bytes:
    """
    ExecuTorch's program of a tier.

    Raises:
        StoreError: if it is damaged on the disk.
        PayloadError: if it does not unpack to what the manifest says.

    """
    manifest = Manifest.from_bytes(unpacked_manifest(artifacts, record))
    packed = artifacts.verified(record.program.sha256).read_bytes()
    return unpack(packed, record.program.encoding, manifest.files[PROGRAM_FILE].size)


def choose_tier(tiers: Sequence[Tier], budget: int) -> Tier | None:
    """The largest tier whose measured memory fits ``budget`` bytes (0: no limit); none if nothing fits."""
    fitting = [tier for tier in tiers if budget == 0 or tier.needs_bytes <= budget]
    return fitting[-1] if fitting else None


def pick_tier(tiers: Sequence[Tier], ready: Ready) -> Tier:
    """
    The program for a device.

    Raises:
        Refused: if nothing fits it.

    """
    tier = choose_tier(tiers, ready.budget)
    if tier is None:
        least = tiers[0]
        raise Refused(
            "budget",
            f"the budget of {format_bytes(ready.budget)} is too small: the smallest tier, {least.name}, "
            f"needs {format_bytes(least.needs_bytes)}",
        )
    if ENGINE_FILES.get(ready.engine) != GRAPH_FILE and ready.executorch != tier.manifest.executorch:
        raise Refused(
            "runtime",
            f"the device runs ExecuTorch {ready.executorch}, the programs need {tier.manifest.executorch}: "
            f"install the SDK that belongs to this coordinator",
        )
    serving = tier.serving(ready.engine)
    if serving is None:
        raise Refused(
            "engine",
            f"the run's programs were made by an exporter that wrote nothing for the engine {ready.engine!r}: "
            "begin the run anew",
        )
    return serving
