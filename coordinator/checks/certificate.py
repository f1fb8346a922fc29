"""The device port's certificate and its private key."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from cryptography import x509

from ..config import ServerSection
from .findings import Finding

__all__ = ["check_certificate"]

DAYS_LEFT = 30
_EVERYWHERE = ("0.0.0.0", "::", "")


def check_certificate(section: ServerSection) -> Iterator[Finding]:
    """Whether it can be served: that it is there, belongs to its key, is valid today and is for the host."""
    path, key = section.certificate, section.private_key
    if path is None or key is None:
        return
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError) as error:
        words = error.strerror if isinstance(error, OSError) else "it is no PEM certificate"
        yield Finding("error", f"server.certificate: {path} holds no certificate: {words}")
        return
    unusable = _key_problem(path, key)
    if unusable:
        yield Finding("error", unusable)
    elif stat.S_IMODE(key.stat().st_mode) & 0o077:
        yield Finding("error", f"server.private_key: {key} can be read by others: chmod 600 {key}")
    yield from _dates(path, certificate)
    yield from _names(path, certificate, section)


def _key_problem(certificate: Path, key: Path) -> str:
    """Why the pair cannot be loaded; empty if it can."""
    if not key.is_file():
        return f"server.private_key: there is no file {key}: give the key that belongs to {certificate}"
    asked = []

    def passphrase() -> str:
        asked.append(True)
        return ""

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, passphrase)
    except (OSError, ValueError) as error:
        if asked:
            return (
                f"server.private_key: {key} is encrypted, and the coordinator starts without anybody to ask: write it "
                f"without a pass phrase (openssl pkey -in {key} -out NEW.pem), readable by its owner alone"
            )
        if "MISMATCH" in str(error).upper().replace(" ", "_"):
            return f"server.private_key: {key} is not the key of {certificate}: give the two that belong together"
        if isinstance(error, ssl.SSLError):
            return f"server.private_key: {key} is no private key in PEM: give the key that belongs to {certificate}"
        return f"server.private_key: {key} cannot be read: {getattr(error, 'strerror', None) or error}"
    return ""


def _dates(path: Path, certificate: x509.Certificate) -> Iterator[Finding]:
    now = datetime.datetime.now(datetime.UTC)
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if begins > now:
        yield Finding("error", f"the certificate {path} is not valid before {begins:%Y-%m-%d}: devices refuse it today")
    elif ends <= now:
        yield Finding("error", f"the certificate {path} expired on {ends:%Y-%m-%d}: devices refuse it; give a new one")
    else:
        days = (ends - now).days
        yield Finding("ok" if days >= DAYS_LEFT else "warning", f"the certificate {path} is good for {days} more days")


def _names(path: Path, certificate: x509.Certificate, section: ServerSection) -> Iterator[Finding]:
    """Devices compare the certificate with the address that they connect to."""
    host = urlsplit(section.public_url).hostname or "" if section.public_url else section.host
    if host in _EVERYWHERE:
        return
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        yield Finding("error", f"the certificate {path} names no host (subjectAltName): devices refuse it")
        return
    domains = names.get_values_for_type(x509.DNSName)
    addresses = names.get_values_for_type(x509.IPAddress)
    if not _matches(host, domains, addresses):
        where = "server.public_url" if section.public_url else "server.host"
        known = ", ".join([*domains, *map(str, addresses)]) or "no host"
        yield Finding(
            "warning",
            f"the certificate {path} is for {known}, and {where} says {host}: devices that connect there refuse it; "
            "make one for that name, or set server.public_url to the name that devices use",
        )


def _matches(host: str, domains: Sequence[str], addresses: Sequence[object]) -> bool:
    try:
        return ipaddress.ip_address(host) in addresses
    except ValueError:
        wildcard = f"*.{host.partition('.')[2]}"
        return any(domain.lower() in (host.lower(), wildcard.lower()) for domain in domains)
