"""
Device and coordinator prove to each other that they hold the device's secret.

Each sends a nonce and answers with HMAC-SHA256 over run, device and both nonces. The two
directions use different labels, so an answer cannot be reflected.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets

__all__ = ["NONCE_BYTES", "SECRET_BYTES", "coordinator_mac", "device_mac", "matches", "new_nonce"]

NONCE_BYTES = 32
SECRET_BYTES = 32


def new_nonce() -> str:
    """A fresh random nonce, hex."""
    return secrets.token_hex(NONCE_BYTES)


def device_mac(secret: bytes, run: str, device: str, device_nonce: str, coordinator_nonce: str) -> str:
    """
    The device's answer, hex.

    Args:
        secret: 32 bytes that the device made up.
        run: the run's name.
        device: the device's name.
        device_nonce: hex.
        coordinator_nonce: hex.

    """
    return _mac(secret, "ftte v1 device", run, device, device_nonce, coordinator_nonce)


def coordinator_mac(secret: bytes, run: str, device: str, device_nonce: str, coordinator_nonce: str) -> str:
    """
    The coordinator's answer, hex.

    Args:
        secret: 32 bytes that the device made up.
        run: the run's name.
        device: the device's name.
        device_nonce: hex.
        coordinator_nonce: hex.

    """
    return _mac(secret, "ftte v1 coordinator", run, device, device_nonce, coordinator_nonce)


def matches(expected: str, given: str) -> bool:
    """Compare in constant time."""
    return hmac.compare_digest(expected.encode(), given.encode())


def _mac(secret: bytes, *parts: str) -> str:
    # Names and nonces cannot contain a newline, so joined parts are unambiguous.
    return hmac.new(secret, "\n".join(parts).encode(), hashlib.sha256).hexdigest()
