"""Certificates for a pilot."""

from __future__ import annotations

import ssl
import stat
from pathlib import Path

import pytest

from coordinator.config import ServerSection
from coordinator.errors import ConfigError
from coordinator.net.tls import certificate_fingerprint, make_certificate, server_context


def test_a_certificate_that_was_made_can_be_served_and_trusted(tmp_path: Path) -> None:
    certificate, key = tmp_path / "c.pem", tmp_path / "k.pem"
    fingerprint = make_certificate(["example.org", "192.0.2.7", "2001:db8::1"], certificate, key)
    assert certificate_fingerprint(certificate) == (fingerprint, True)
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    context = server_context(ServerSection(certificate=certificate, private_key=key))
    assert context is not None
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    trusting = ssl.create_default_context(cafile=str(certificate))
    (known,) = trusting.get_ca_certs()
    assert ("DNS", "example.org") in known["subjectAltName"]
    assert ("IP Address", "192.0.2.7") in known["subjectAltName"]


def test_what_is_there_is_not_overwritten(tmp_path: Path) -> None:
    certificate, key = tmp_path / "c.pem", tmp_path / "k.pem"
    make_certificate(["a"], certificate, key)
    with pytest.raises(ConfigError, match=r"k\.pem is there already.*--out"):
        make_certificate(["a"], certificate, key)
    with pytest.raises(ConfigError, match="needs a name"):
        make_certificate([], tmp_path / "d.pem", tmp_path / "l.pem")


def test_a_certificate_and_another_ones_key_are_refused(tmp_path: Path) -> None:
    make_certificate(["a"], tmp_path / "a.pem", tmp_path / "a.key")
    make_certificate(["b"], tmp_path / "b.pem", tmp_path / "b.key")
    with pytest.raises(ConfigError, match=r"a\.pem with its private key"):
        server_context(ServerSection(certificate=tmp_path / "a.pem", private_key=tmp_path / "b.key"))
    with pytest.raises(ConfigError, match="cannot read a certificate"):
        certificate_fingerprint(tmp_path / "a.key")
