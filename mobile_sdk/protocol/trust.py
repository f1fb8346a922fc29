"""
Who speaks for a run: whoever holds the Ed25519 key that devices pin, or one that follows it.

A device tells its secret once, when it enrols, and only to a coordinator that has signed both sides'
nonces with the run's key. To replace a key, the old one signs the new one; a device that pins the old
one follows, and pins the new one from then on.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..signing import ed25519
from .messages import Succession

__all__ = ["challenge_bytes", "is_challenge", "succeeds", "succession_bytes", "verify_signature"]


_CHALLENGE = "ftte challenge v1"


def challenge_bytes(run: str, device: str, device_nonce: str, coordinator_nonce: str) -> bytes:
    """
    What the run's key signs in a challenge.

    Args:
        run: the run's name.
        device: the device's name.
        device_nonce: hex.
        coordinator_nonce: hex.

    """
    return _tagged(_CHALLENGE, run, device, device_nonce, coordinator_nonce)


def is_challenge(run: str, content: bytes) -> bool:
    """Whether ``content`` is a challenge of ``run``, and thus nothing else that its key may sign."""
    return content.startswith(_tagged(_CHALLENGE, run, "")) and content.count(b"\n") == 3


def succession_bytes(run: str, old: str, new: str) -> bytes:
    """
    What the key ``old`` (hex) of a run signs to be followed by ``new``.

    Args:
        run: the run's name.
        old: the key that signs, hex.
        new: the key that follows, hex.

    """
    return _tagged("ftte succession v1", run, old, new)


def verify_signature(key: str, content: bytes, signature: str) -> bool:
    """
    Whether ``signature`` over ``content`` was made with ``key``; key and signature in hex.

    Args:
        key: Ed25519 public key, 64 hex digits.
        content: what was signed.
        signature: 128 hex digits.

    Raises:
        ValueError: if key or signature is not hex.

    """
    return ed25519.verify(bytes.fromhex(key), content, bytes.fromhex(signature))


def succeeds(run: str, pinned: str, key: str, succession: Sequence[Succession]) -> bool:
    """
    Whether ``key`` is ``pinned`` or follows it.

    Args:
        run: the run's name.
        pinned: the key that is trusted, hex.
        key: the key that somebody shows, hex.
        succession: the run's keys after its first one, oldest first; those before ``pinned`` are passed over.

    """
    if key == pinned:
        return True
    known: list[str] = [step.key for step in succession]
    start = known.index(pinned) + 1 if pinned in known else 0
    current = pinned
    for step in succession[start:]:
        if not verify_signature(current, succession_bytes(run, current, step.key), step.signature):
            return False
        current = step.key
    return current == key


def _tagged(tag: str, *parts: str) -> bytes:
    # Names and hexadecimal cannot contain a newline, so joined parts are unambiguous.
    return tag.encode() + b"\0" + "\n".join(parts).encode()
