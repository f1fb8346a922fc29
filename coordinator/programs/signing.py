"""The signatures of a run's programs after a rotation of its key."""

from __future__ import annotations

from mobile_sdk.signing import ed25519, signed_bytes

from ..store.interface import Store
from .run_key import RunKey
from .tiers import unpacked_manifest

__all__ = ["sign_tiers"]


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
