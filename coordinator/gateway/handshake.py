"""
How a gateway and a conductor of different machines know each other: both have the same secret.

The connection is TLS 1.3 with a certificate that the conductor makes for itself at its start and that no authority has
signed. Each side then proves the secret by an HMAC over both nonces **and the certificate that it sees**: whoever sits
in between shows another certificate, so no proof of one side is of use at the other. (The binding is that of RFC 5929,
``tls-server-end-point``.) Nothing else is said, and everything is of a fixed length, until both have proved themselves.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
import ssl
import stat
from pathlib import Path

from ..errors import ConfigError

__all__ = ["PROOF_SECONDS", "NotProved", "answer_gateway", "client_context", "greet_conductor", "load_secret"]

# What the connection begins with; another release may begin otherwise.
_GREETING = b"ftte gateways 2\n"
_NONCE_BYTES = 32
_MAC_BYTES = 32

# A peer has so long to prove itself.
PROOF_SECONDS = 10.0

# Bytes of the secret: 32 random ones, in whatever notation.
LEAST_BYTES = 32
MOST_BYTES = 1_024


class NotProved(Exception):
    """The other side has not proved that it has the secret."""


def load_secret(path: Path) -> bytes:
    """
    The secret in the file ``path``, without white space around it.

    Raises:
        ConfigError: if it cannot be read, others may read it, or it is too short; the message does not repeat it.

    """
    remedy = f"`(umask 077; head -c 32 /dev/urandom | base64 > {path})` makes one, the same for every machine"
    try:
        mode = path.stat().st_mode
        content = path.read_bytes().strip()
    except FileNotFoundError:
        raise ConfigError(f"gateways.secret: there is no file {path}; {remedy}") from None
    except OSError as error:
        raise ConfigError(f"gateways.secret: cannot read {path}: {error.strerror}") from error
    # A container's secrets may belong to root, and be readable by a group that is this process's alone.
    if mode & (stat.S_IRWXO | stat.S_IWGRP):
        raise ConfigError(f"gateways.secret: others may read or change {path}: run `chmod 600 {path}`")
    if not LEAST_BYTES <= len(content) <= MOST_BYTES:
        raise ConfigError(
            f"gateways.secret: {path} holds {len(content)} bytes; it must be {LEAST_BYTES} to {MOST_BYTES}: {remedy}"
        )
    return content


def client_context() -> ssl.SSLContext:
    """TLS of a gateway: the certificate is verified by :func:`greet_conductor`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


async def greet_conductor(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, secret: bytes) -> None:
    """
    Prove to a conductor that this gateway has the secret, and see that the conductor has it.

    Raises:
        NotProved: if it has not, or what listens there is no conductor.

    """
    shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    fingerprint = hashlib.sha256(shown).digest()
    ours = secrets.token_bytes(_NONCE_BYTES)
    writer.write(_GREETING + ours)
    try:
        async with asyncio.timeout(PROOF_SECONDS):
            theirs = await reader.readexactly(_NONCE_BYTES)
            writer.write(_mac(secret, b"gateway", fingerprint, ours, theirs))
            proof = await reader.readexactly(_MAC_BYTES)
    except (asyncio.IncompleteReadError, TimeoutError):
        raise NotProved("it has another secret, or is no conductor of this release") from None
    if not hmac.compare_digest(proof, _mac(secret, b"conductor", fingerprint, ours, theirs)):
        raise NotProved("it could not prove that it has the secret")


async def answer_gateway(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, secret: bytes, fingerprint: bytes
) -> None:
    """
    See that whoever has connected has the secret; then prove that this conductor has it.

    Args:
        reader: of the connection.
        writer: of the connection.
        secret: what both have.
        fingerprint: SHA-256 of this side's certificate.

    Raises:
        NotProved: if it has not, or takes too long.

    """
    ours = secrets.token_bytes(_NONCE_BYTES)
    try:
        async with asyncio.timeout(PROOF_SECONDS):
            if await reader.readexactly(len(_GREETING)) != _GREETING:
                raise NotProved("it is no gateway of this release")
            theirs = await reader.readexactly(_NONCE_BYTES)
            writer.write(ours)
            proof = await reader.readexactly(_MAC_BYTES)
    except (OSError, asyncio.IncompleteReadError):
        raise NotProved("it said nothing that proves anything") from None
    if not hmac.compare_digest(proof, _mac(secret, b"gateway", fingerprint, theirs, ours)):
        raise NotProved("it has another secret")
    writer.write(_mac(secret, b"conductor", fingerprint, theirs, ours))


def _mac(secret: bytes, who: bytes, fingerprint: bytes, gateway: bytes, conductor: bytes) -> bytes:
    # Every part but the first has a fixed length, so joined parts are unambiguous.
    return hmac.digest(secret, who + b"\0" + fingerprint + gateway + conductor, "sha256")
