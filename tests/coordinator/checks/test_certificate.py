"""Certificates that devices would refuse, and keys that cannot be loaded, are named before anything begins."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from coordinator.checks.certificate import check_certificate
from coordinator.config import ServerSection

TODAY = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)


def make(
    folder: Path, *, begins: float = -1, ends: float = 300, host: str = "ftte.example", phrase: bytes = b""
) -> ServerSection:
    """A certificate that is valid between so many days from today, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "FTTE")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(TODAY + begins * DAY)
        .not_valid_after(TODAY + ends * DAY)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    secret = serialization.BestAvailableEncryption(phrase) if phrase else serialization.NoEncryption()
    folder.mkdir(exist_ok=True)
    (folder / "c.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "k.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, secret)
    )
    (folder / "k.pem").chmod(0o600)
    return ServerSection(host="ftte.example", certificate=folder / "c.pem", private_key=folder / "k.pem")


def errors(section: ServerSection, level: str = "error") -> list[str]:
    return [finding.sentence for finding in check_certificate(section) if finding.level == level]


def test_a_certificate_that_can_be_served_is_good_for_so_many_days(tmp_path: Path) -> None:
    (finding,) = check_certificate(make(tmp_path))
    assert finding.level == "ok"
    assert "good for 299 more days" in finding.sentence
    (finding,) = check_certificate(make(tmp_path, host="*.example"))
    assert finding.level == "ok"
    (finding,) = check_certificate(make(tmp_path, ends=10))
    assert finding.level == "warning"


@pytest.mark.parametrize(
    ("dates", "words"),
    [({"begins": 100}, "is not valid before 20"), ({"begins": -9, "ends": -1}, "expired on 20")],
    ids=["not yet", "no more"],
)
def test_a_certificate_of_another_time_is_refused(tmp_path: Path, dates: dict[str, Any], words: str) -> None:
    (sentence,) = errors(make(tmp_path, **dates))
    assert words in sentence


def test_a_missing_a_foreign_and_an_encrypted_key_are_told_apart(tmp_path: Path) -> None:
    section = make(tmp_path / "one")
    other = make(tmp_path / "other")
    assert "is not the key of" in errors(section.model_copy(update={"private_key": other.private_key}))[0]
    encrypted = make(tmp_path / "encrypted", phrase=b"secret")
    assert "is encrypted" in errors(encrypted)[0]
    (tmp_path / "one" / "k.pem").write_text("no key")
    assert "is no private key in PEM" in errors(section)[0]
    (tmp_path / "one" / "k.pem").unlink()
    assert f"there is no file {tmp_path / 'one' / 'k.pem'}" in errors(section)[0]


def test_a_certificate_of_another_host_is_warned_of_with_both_names(tmp_path: Path) -> None:
    section = make(tmp_path, host="other.example")
    (sentence,) = errors(section, "warning")
    assert "is for other.example, and server.host says ftte.example" in sentence
    everywhere = section.model_copy(update={"host": "0.0.0.0"})
    assert errors(everywhere, "warning") == []
    (sentence,) = errors(everywhere.model_copy(update={"public_url": "wss://10.1.2.3:80"}), "warning")
    assert "server.public_url says 10.1.2.3" in sentence
