"""TLS for the device port: the operator's certificate, or a self-signed one for a pilot."""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
import ssl
import tempfile
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from mobile_sdk.system.secret_files import create_secret

from ..config import DashboardSection, ServerSection
from ..errors import ConfigError

__all__ = ["certificate_fingerprint", "make_certificate", "server_context", "temporary_context"]

# Long enough for a pilot; short enough that nobody keeps it for years.
DAYS = 397


def server_context(section: ServerSection | DashboardSection) -> ssl.SSLContext | None:
    """
    The TLS context of the device port or of the dashboard; none where the run file names no certificate.

    Raises:
        ConfigError: if certificate and key cannot be used.

    """
    if section.certificate is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(section.certificate, section.private_key)
    except OSError as error:
        raise ConfigError(f"cannot use the certificate {section.certificate} with its private key: {error}") from error
    return context


def certificate_fingerprint(path: Path) -> tuple[str, bool]:
    """
    SHA-256 (hex) of the first certificate in a PEM file, and whether it has signed itself.

    Raises:
        ConfigError: if the file holds no certificate.

    """
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read a certificate from {path}: {error}") from error
    digest = hashlib.sha256(certificate.public_bytes(serialization.Encoding.DER)).hexdigest()
    return digest, certificate.issuer == certificate.subject


def make_certificate(names: Sequence[str], certificate: Path, private_key: Path) -> str:
    """
    A self-signed certificate for ``names`` (host names and IP addresses), with its key readable by its owner alone.

    Args:
        names: host names and IP addresses.
        certificate: the file to write, PEM.
        private_key: the file to write, PEM, of mode 0600.

    Returns:
        Its SHA-256, hex, as an invite carries it.

    Raises:
        ConfigError: if a file is there already or cannot be written, or there is no name.

    """
    if not names:
        raise ConfigError("a certificate needs a name: give the host name or address that devices connect to")
    pem, made = _self_signed(names)
    _create(private_key, pem)
    _create(certificate, made.public_bytes(serialization.Encoding.PEM))
    certificate.chmod(0o644)  # it is for everybody
    return hashlib.sha256(made.public_bytes(serialization.Encoding.DER)).hexdigest()


def temporary_context() -> tuple[ssl.SSLContext, bytes]:
    """
    TLS for this process alone, with a key that nobody else ever has, and the SHA-256 of its certificate.

    No authority vouches for it: peers have to know each other by other means, which the SHA-256 is part of.
    """
    pem, made = _self_signed(["ftte"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    with tempfile.TemporaryDirectory(prefix="ftte-") as folder:  # the library takes files only
        private_key, certificate = Path(folder) / "key.pem", Path(folder) / "certificate.pem"
        create_secret(private_key, pem)
        certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
        context.load_cert_chain(certificate, private_key)
    return context, hashlib.sha256(made.public_bytes(serialization.Encoding.DER)).digest()


def _self_signed(names: Sequence[str]) -> tuple[bytes, x509.Certificate]:
    """A private key in PEM, and a certificate that it has signed for itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64])])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))  # phones' clocks are not always right
        .not_valid_after(now + datetime.timedelta(days=DAYS))
        .add_extension(x509.SubjectAlternativeName([_name(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return pem, made


def _name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _create(path: Path, content: bytes) -> None:
    try:
        create_secret(path, content)
    except FileExistsError:
        raise ConfigError(
            f"{path} is there already, and is not overwritten: name another folder with --out, or remove it"
        ) from None
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}") from error
