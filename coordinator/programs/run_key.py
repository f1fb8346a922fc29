"""The run's Ed25519 key: its private half never leaves the state directory."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from mobile_sdk.durable_files import write_durably
from mobile_sdk.protocol.messages import Hex, Succession
from mobile_sdk.protocol.trust import succession_bytes
from mobile_sdk.signing import signed_bytes
from mobile_sdk.system.secret_files import replace_secret

from ..errors import StoreError
from ..store import crash_points
from ..store.artifacts import disk_available

__all__ = ["RunKey"]


class RunKey:
    """
    Signs what devices run.

    Args:
        private: the private half.
        succession: how the run's earlier keys led to this one, oldest first.
        first: the run's first public key, hex; this one, if there is no other.

    """

    def __init__(self, private: Ed25519PrivateKey, succession: Sequence[Succession] = (), first: str = "") -> None:
        self._private = private
        self._first = first or self.public
        self.succession = tuple(succession)

    @property
    def predecessors(self) -> list[str]:
        """The run's earlier public keys, oldest first."""
        return [self._first, *(step.key for step in self.succession)][: len(self.succession)]

    @classmethod
    def load_or_create(cls, path: Path) -> RunKey:
        """
        The key in the file ``path``; a new one is made where there is none.

        Raises:
            StoreError: if the file does not hold a key.

        """
        if not path.exists():
            private = Ed25519PrivateKey.generate()
            _write(path, private)
            return cls(private)
        content = path.read_bytes()
        if len(content) != 32:
            raise StoreError(f"{path} holds {len(content)} bytes, not a key of 32: restore it from a backup")
        private = Ed25519PrivateKey.from_private_bytes(content)
        return cls(private, *_succession(path, private.public_key().public_bytes_raw().hex()))

    def rotated(self, path: Path, run: str) -> RunKey:
        """
        A new key that follows this one, in the place of the file ``path``; durable when this returns.

        What the old key has signed is to be signed again; devices that pin it follow by themselves.

        Raises:
            StoreUnavailable: if it cannot be written just now.

        """
        private = Ed25519PrivateKey.generate()
        public = private.public_key().public_bytes_raw().hex()
        step = Succession(Hex(public), Hex(self._private.sign(succession_bytes(run, self.public, public)).hex()))
        steps = (*self.succession, step)
        # First the public list, then the key: killed in between, the list ends with a key that nobody has, and is cut.
        known = {"first": self._first, "steps": [dataclasses.asdict(step) for step in steps]}
        with disk_available():
            write_durably(_succession_path(path), json.dumps(known).encode())
            crash_points.step("key: succession written")
            _write(path, private)
        crash_points.step("key: written")
        return RunKey(private, steps, self._first)

    @property
    def public(self) -> str:
        """The public key as 64 hex digits: what devices pin."""
        return self._private.public_key().public_bytes_raw().hex()

    async def sign_challenge(self, content: bytes) -> str:
        """The signature of a challenge, hex; see :func:`mobile_sdk.protocol.trust.challenge_bytes`."""
        return self._private.sign(content).hex()

    def sign(self, manifest: bytes) -> str:
        """The signature of a manifest's exact bytes, hex."""
        return self._private.sign(signed_bytes(manifest)).hex()


def _write(path: Path, private: Ed25519PrivateKey) -> None:
    replace_secret(path, private.private_bytes_raw())


def _succession_path(path: Path) -> Path:
    return path.with_name("succession.json")


def _succession(path: Path, public: str) -> tuple[list[Succession], str]:
    """The steps that led to the key ``public``, and the key that they began with."""
    file = _succession_path(path)
    if not file.exists():
        return [], public
    try:
        data = json.loads(file.read_bytes())
        steps = [Succession(Hex(step["key"]), Hex(step["signature"])) for step in data["steps"]]
        first = str(data["first"])
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{file} is damaged ({error}): restore it from a backup") from error
    known = [step.key for step in steps]
    return (steps[: known.index(Hex(public)) + 1], first) if public in known else ([], public)
