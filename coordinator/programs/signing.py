"""The signatures of a run's programs after a rotation of its key."""

from __future__ import annotations

from pathlib import Path

from mobile_sdk.signing import ed25519, signed_bytes

from ..errors import StoreError
from ..store.interface import Store
from ..store.records import TierRecord
from .run_key import RunKey
from .tiers import unpacked_manifest

__all__ = ["check_key", "sign_tiers"]


SIGNATURE_BYTES = 64


def check_key(store: Store, folder: Path) -> None:
    """
    Whether ``folder`` has the key that the run's programs are signed with, or one that follows it.

    One program that it signed is enough: that others were altered is what devices find out.

    Raises:
        StoreError: if it has another, or none: a new key would be one that no device trusts.

    """
    tiers = store.tiers()
    path = folder / "run.key"
    remedy = f"copy run.key and succession.json into {folder} from the machine that has led the run"
    if tiers and not path.exists():
        raise StoreError(f"the run has begun, but its key is not in {folder}: {remedy}")
    if not tiers:
        return
    key = RunKey.load_or_create(path)
    signed = [record for record in tiers if len(bytes.fromhex(record.signature)) == SIGNATURE_BYTES]
    if signed and not any(_is_by(key, store, record) for record in signed):
        raise StoreError(f"{path} is not the key that the run's programs are signed with: {remedy}")


def _is_by(key: RunKey, store: Store, record: TierRecord) -> bool:
    manifest = signed_bytes(unpacked_manifest(store.artifacts, record))
    signature = bytes.fromhex(record.signature)
    return any(ed25519.verify(bytes.fromhex(each), manifest, signature) for each in [key.public, *key.predecessors])


def sign_tiers(store: Store, key: RunKey) -> None:
    """After a key rotation, re-sign programs that a predecessor of ``key`` signed. Unsigned programs stay unsigned."""
    signatures = {}
    for record in store.tiers():
        manifest = unpacked_manifest(store.artifacts, record)
        old = bytes.fromhex(record.signature)
        if any(ed25519.verify(bytes.fromhex(each), signed_bytes(manifest), old) for each in key.predecessors):
            signatures[record.name] = key.sign(manifest)
    if signatures:
        store.sign(signatures)
