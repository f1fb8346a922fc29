"""``wss://`` where OpenSSL finds no authorities, as on Android: those of certifi are trusted."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import os
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from websockets.asyncio.server import ServerConnection, serve

# In a process of its own: OpenSSL's folders are those of the environment, and there is nothing in them.
CLIENT = """
import asyncio, sys
from mobile_sdk.net.connection import websocket

async def main():
    async with websocket(sys.argv[1])() as connection:
        print(await connection.receive())

asyncio.run(main())
"""


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


@pytest.fixture
def authority(tmp_path: Path) -> tuple[Path, Path, Path]:
    """An authority's certificate, and a server's that it vouches for, with its key."""
    now = datetime.datetime.now(datetime.UTC)

    def certificate(
        name: str, key: ec.EllipticCurvePrivateKey, issuer: str, signer: ec.EllipticCurvePrivateKey, authority: bool
    ) -> x509.Certificate:
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
            .sign(signer, hashes.SHA256())
        )

    root, server = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    paths = tmp_path / "authority.pem", tmp_path / "server.pem", tmp_path / "server.key"
    encoding = serialization.Encoding.PEM
    paths[0].write_bytes(certificate("authority", root, "authority", root, True).public_bytes(encoding))
    paths[1].write_bytes(certificate("server", server, "authority", root, False).public_bytes(encoding))
    paths[2].write_bytes(key_pem(server))
    return paths


def phone(folder: Path, **more: str) -> dict[str, str]:
    """An environment without authorities."""
    return os.environ | {"SSL_CERT_FILE": str(folder / "none.pem"), "SSL_CERT_DIR": str(folder / "none")} | more


def test_a_server_is_trusted_that_an_authority_of_certifi_vouches_for(
    authority: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    """The package certifi is in the place of the real one, with this test's authority alone."""
    root, certificate, key = authority
    certifi = tmp_path / "packages" / "certifi"
    certifi.mkdir(parents=True)
    (certifi / "__init__.py").write_text(f"def where():\n    return {str(root)!r}\n")

    async def connect() -> tuple[bytes, bytes]:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)

        async def greet(connection: ServerConnection) -> None:
            await connection.send("welcome")

        async with serve(greet, "127.0.0.1", 0, ssl=context) as server:
            port = server.sockets[0].getsockname()[1]
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", CLIENT, f"wss://127.0.0.1:{port}"),
                env=phone(tmp_path, PYTHONPATH=str(certifi.parent)),
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
            return await process.communicate()

    printed, error = asyncio.run(connect())
    assert printed.strip() == b"welcome", error.decode()[-2000:]


def test_without_authorities_and_certifi_the_remedy_is_named(tmp_path: Path) -> None:
    (tmp_path / "certifi.py").write_text("raise ImportError\n")
    done = subprocess.run(
        [sys.executable, "-c", "from mobile_sdk.net.connection import websocket; websocket('wss://example.org')"],
        env=phone(tmp_path, PYTHONPATH=str(tmp_path)), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (
        "ValueError: this system has no certificate authorities that OpenSSL can read: install certifi" in done.stderr
    )


def test_a_pinned_certificate_needs_no_authorities(tmp_path: Path) -> None:
    (tmp_path / "certifi.py").write_text("raise ImportError\n")
    code = (
        "from mobile_sdk.net.connection import Transport, websocket\n"
        "websocket('wss://example.org', Transport(certificate='ab' * 32))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=phone(tmp_path, PYTHONPATH=str(tmp_path)), capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
