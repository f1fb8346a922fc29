"""The run's Ed25519 key: its private half never leaves the state directory."""

from __future__ import annotations

import os
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from mobile_sdk.files import sync_folder
from mobile_sdk.signing import signed_bytes

from .errors import StoreError

__all__ = ["RunKey"]


class RunKey:
    """Signs what devices run."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private

    @classmethod
    def load_or_create(cls, path: Path) -> RunKey:
        """
        The key in the file ``path``; a new one is made where there is none.

        Raises:
            StoreError: if the file does not hold a key.

        """
        if not path.exists():
            private = Ed25519PrivateKey.generate()
            temporary = path.with_suffix(".new")
            temporary.unlink(missing_ok=True)
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(private.private_bytes_raw())
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
            sync_folder(path.parent)
            return cls(private)
        content = path.read_bytes()
        if len(content) != 32:
            raise StoreError(f"{path} holds {len(content)} bytes, not a key of 32: restore it from a backup")
        return cls(Ed25519PrivateKey.from_private_bytes(content))

    @property
    def public(self) -> str:
        """The public key as 64 hex digits: what devices pin."""
        return self._private.public_key().public_bytes_raw().hex()

    def sign_challenge(self, content: bytes) -> str:
        """The signature of a challenge, hex; see :func:`mobile_sdk.protocol.trust.challenge_bytes`."""
        return self._private.sign(content).hex()

    def sign(self, manifest: bytes) -> str:
        """The signature of a manifest's exact bytes, hex."""
        return self._private.sign(signed_bytes(manifest)).hex()
