"""A program is code: a device runs only what the run's key signed for this run, and nothing older."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from coordinator.programs.run_key import RunKey
from mobile_sdk.manifest import PROGRAM_FILE, FileEntry, Manifest
from mobile_sdk.payload import pack, unpack, unpack_text
from mobile_sdk.signing import signed_bytes

from .conftest import Process, Site


class Tamper:
    """Changes what the coordinator will send to small devices, behind its back; it evaluates with another program."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def program(self) -> bytes:
        """The program of the small tier."""
        entry = Manifest.from_bytes(self.manifest()).files[PROGRAM_FILE]
        return unpack(self._file("program").read_bytes(), str(self._ref("program")["encoding"]), entry.size)

    def manifest(self) -> bytes:
        """The manifest of the small tier."""
        return unpack_text(self._file("manifest").read_bytes(), str(self._ref("manifest")["encoding"]))

    def replace_program(self, program: bytes) -> None:
        """Send ``program`` instead, packed as usual."""
        packed, encoding = pack(program)
        self.replace("program", packed, encoding)

    def replace(self, column: str, content: bytes, encoding: str = "identity") -> None:
        """Send ``content`` instead."""
        entry = FileEntry.of(content)
        (self._site.state / "artifacts" / entry.sha256).write_bytes(content)
        ref = self._ref(column) | {"sha256": entry.sha256, "size": entry.size, "encoding": encoding}
        self._site.query(f"UPDATE tiers SET {column} = '{json.dumps(ref)}' WHERE name = 'small'")

    def sign(self, manifest: bytes, key: Ed25519PrivateKey | None = None) -> None:
        """Send this signature of ``manifest``: by ``key``, or by the run's own."""
        own = RunKey.load_or_create(self._site.state / "run.key")
        signature = own.sign(manifest) if key is None else key.sign(signed_bytes(manifest)).hex()
        self._site.query(f"UPDATE tiers SET signature = '{signature}' WHERE name = 'small'")

    def _ref(self, column: str) -> dict[str, object]:
        return dict(json.loads(self._site.query(f"SELECT {column} FROM tiers WHERE name = 'small'")[0][0]))

    def _file(self, column: str) -> Path:
        return self._site.state / "artifacts" / str(self._ref(column)["sha256"])


def join(site: Site) -> Process:
    """A device that joins a running coordinator, and has rejected its program twice; it comes back ever more seldom."""
    site.serve("[stop]\nversions = 1\n")
    device = site.device("phone-1", 0, "--budget", "1.5MB")
    device.wait_for(r"trying again(.|\n)*trying again")
    device.stop()
    assert not any((site.folder / "phone-1" / "programs").iterdir()), "nothing was installed"
    assert site.query("SELECT count(*) FROM updates") == [(0,)]
    return device


def test_a_program_altered_by_one_byte_is_refused(site: Site) -> None:
    tamper = Tamper(site)
    program = bytearray(tamper.program())
    program[len(program) // 2] ^= 1
    tamper.replace_program(bytes(program))
    assert "program.pte" in join(site).output


def test_a_manifest_altered_by_one_byte_is_refused(site: Site) -> None:
    tamper = Tamper(site)
    manifest = tamper.manifest()
    altered = re.sub(rb'("micro_batch":)\d+', rb"\g<1>3", manifest)
    assert altered != manifest
    tamper.replace("manifest", altered)
    assert "signature" in join(site).output


def test_a_program_signed_by_another_key_is_refused(site: Site) -> None:
    tamper = Tamper(site)
    tamper.sign(tamper.manifest(), Ed25519PrivateKey.from_private_bytes(bytes(32)))
    assert "signature" in join(site).output


def test_a_program_of_another_run_is_refused(site: Site) -> None:
    tamper = Tamper(site)
    foreign = dataclasses.replace(Manifest.from_bytes(tamper.manifest()), run="other").to_bytes()
    tamper.replace("manifest", foreign)
    tamper.sign(foreign)
    assert "'other'" in join(site).output


def test_a_program_older_than_the_one_held_is_refused(site: Site) -> None:
    server = site.serve("[stop]\nversions = 100\n")
    device = site.device("phone-1", 0)
    device.wait_for("accepted")
    server.stop()
    device.stop()
    identity = site.folder / "phone-1" / "device.json"
    assert json.loads(identity.read_text())["serial"] == 1
    identity.write_text(identity.read_text().replace('"serial": 1', '"serial": 2'))
    site.serve("[stop]\nversions = 100\n")
    again = site.device("phone-1", 0)
    again.wait_for(r"serial 1(.|\n)*trying again")
    again.stop()


def test_a_program_that_unpacks_to_more_than_it_promises_is_refused(site: Site) -> None:
    tamper = Tamper(site)
    tamper.replace_program(bytes(300_000_000))
    device = join(site)
    assert "another size" in device.output


@pytest.mark.parametrize("key", ["", "ab" * 31, "xyz", "ab" * 32])
def test_a_key_that_is_not_the_runs_is_refused_before_anything_is_sent(key: str, site: Site) -> None:
    site.serve()
    site.key = key
    device = site.device("phone-1", 0)
    assert device.wait() == 1
    assert "key" in device.output
    assert site.query("SELECT count(*) FROM devices") == [(0,)]
