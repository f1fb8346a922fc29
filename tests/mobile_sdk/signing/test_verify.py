"""A device runs a program only if the run's key signed it, and only the newest."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from mobile_sdk.errors import LayoutError, ProgramError, ProgramRejected
from mobile_sdk.layout import Layout, Parameter, Subset
from mobile_sdk.manifest import FileEntry, InputContract, Manifest, Memory
from mobile_sdk.signing import signed_bytes, verify_program

LAYOUT = Layout([Parameter("w", (2,))])
CONTENT = {"program.pte": b"a program", "labels.txt": b"cat\ndog\n"}
MANIFEST = Manifest(
    run="harbour",
    serial=7,
    tier="low",
    task="test",
    files={name: FileEntry.of(content) for name, content in CONTENT.items()},
    methods={},
    layout=LAYOUT,
    subset=Subset.whole(LAYOUT),
    contract=InputContract((1,), "float32", (), "int64"),
    metrics=(),
    micro_batch=1,
    memory=Memory(0, 0, 0),
)
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER_KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))


def public(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes_raw()


def check(manifest: Manifest | bytes = MANIFEST, **changes: Any) -> Manifest:
    """:func:`verify_program` of what the run's key signed, but for ``changes``."""
    content = manifest if isinstance(manifest, bytes) else manifest.to_bytes()
    arguments: dict[str, Any] = {
        "manifest": content,
        "signature": KEY.sign(signed_bytes(content)),
        "files": CONTENT,
        "public_key": public(KEY),
        "run": "harbour",
        "least_serial": 7,
    }
    return verify_program(**(arguments | changes))


def test_what_the_runs_key_signed_is_accepted(tmp_path: Path) -> None:
    """From memory and from a folder alike; other files in the folder do not matter."""
    assert check() == MANIFEST
    for name, content in (CONTENT | {"notes.txt": b""}).items():
        (tmp_path / name).write_bytes(content)
    assert check(files=tmp_path) == MANIFEST


def test_newer_programs_are_accepted() -> None:
    assert check(least_serial=0).serial == 7


@pytest.mark.parametrize(
    "signature",
    [
        b"",
        bytes(64),
        OTHER_KEY.sign(signed_bytes(MANIFEST.to_bytes())),
        KEY.sign(MANIFEST.to_bytes()),
        KEY.sign(signed_bytes(MANIFEST.to_bytes())) + b"\0",
    ],
    ids=["missing", "zeros", "of another key", "without the prefix", "too long"],
)
def test_without_the_runs_signature_a_program_is_rejected(signature: bytes) -> None:
    with pytest.raises(ProgramRejected, match=r"signature .* does not fit the pinned key"):
        check(signature=signature)


def test_every_byte_of_the_manifest_is_signed() -> None:
    """Altered manifests are rejected before they are parsed."""
    content = MANIFEST.to_bytes()
    signature = KEY.sign(signed_bytes(content))
    for position in range(0, len(content), 7):
        altered = bytearray(content)
        altered[position] ^= 1
        with pytest.raises(ProgramRejected, match="signature"):
            check(bytes(altered), signature=signature)
    with pytest.raises(ProgramRejected, match="signature"):
        check(content + b" ", signature=signature)


def test_another_runs_program_is_rejected() -> None:
    with pytest.raises(ProgramRejected, match="is for the run 'harbour', not 'city'"):
        check(run="city")


def test_a_program_of_no_run_is_rejected() -> None:
    with pytest.raises(ProgramRejected, match="is for the run '', not 'harbour'"):
        check(dataclasses.replace(MANIFEST, run=""))


def test_older_programs_than_seen_are_rejected() -> None:
    with pytest.raises(ProgramRejected, match="has the serial 7, but 8 was seen before"):
        check(least_serial=8)


def test_a_program_of_another_executorch_is_rejected() -> None:
    with pytest.raises(ProgramRejected, match=r"for ExecuTorch 9\.9, this SDK runs"):
        check(dataclasses.replace(MANIFEST, executorch="9.9"))


@pytest.mark.parametrize("name", CONTENT)
def test_every_listed_file_must_be_there_as_described(name: str, tmp_path: Path) -> None:
    missing = {other: content for other, content in CONTENT.items() if other != name}
    altered = CONTENT | {name: CONTENT[name][:-1] + b"?"}
    longer = CONTENT | {name: CONTENT[name] + b"?"}
    for number, (files, message) in enumerate(
        [(missing, f"lacks the file {name!r}"), (altered, f"{name!r} is altered"), (longer, f"{name!r} is altered")]
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        for file, content in files.items():
            (folder / file).write_bytes(content)
        for source in (files, folder):
            with pytest.raises(ProgramRejected, match=message.replace(".", r"\.")):
                check(files=source)


def test_a_size_that_lies_is_rejected_even_if_the_hash_fits() -> None:
    entry = FileEntry.of(CONTENT["program.pte"])
    files = {**MANIFEST.files, "program.pte": dataclasses.replace(entry, size=entry.size + 1)}
    with pytest.raises(ProgramRejected, match=r"'program\.pte' is altered"):
        check(dataclasses.replace(MANIFEST, files=files))


@pytest.mark.parametrize("name", ["../secret", "/etc/hostname", "a/b", "a\\b", "..", "", "a\0b"])
def test_a_signed_manifest_cannot_name_files_outside_its_folder(name: str, tmp_path: Path) -> None:
    manifest = dataclasses.replace(MANIFEST, files={**MANIFEST.files, name: FileEntry.of(b"")})
    for source in (CONTENT | {name: b""}, tmp_path):
        with pytest.raises(ProgramRejected, match=r"not a plain file name|lacks the file"):
            check(manifest, files=source)


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"\xff", MANIFEST.to_bytes()[:-1]])
def test_signed_nonsense_is_an_error_of_the_sdk_and_no_other(content: bytes) -> None:
    with pytest.raises(ProgramError, match="not a program manifest") as caught:
        check(content)
    assert not isinstance(caught.value, LayoutError)


def test_a_pinned_key_that_is_no_key_rejects_everything() -> None:
    for public_key in (b"", bytes(32), public(KEY)[:-1]):
        with pytest.raises(ProgramRejected, match="signature"):
            check(public_key=public_key)


def test_the_prefix_separates_programs_from_everything_else_that_the_key_may_sign() -> None:
    """The coordinator's signer shares this function; a change of it is a change of the format."""
    assert signed_bytes(b"{}") == b"ftte program v1\0{}"


def test_a_device_needs_only_its_own_engines_file() -> None:
    """Those of other engines are in the manifest, signed like everything, but not on the device."""
    both = {**CONTENT, "graph.safetensors": b"a graph"}
    manifest = dataclasses.replace(MANIFEST, files={n: FileEntry.of(c) for n, c in both.items()})
    for engine, name in (("native", "program.pte"), ("android", "program.pte"), ("interpreted", "graph.safetensors")):
        own = {n: both[n] for n in ("labels.txt", name)}
        assert check(manifest, files=own, engine=engine) == manifest
        with pytest.raises(ProgramRejected, match="is altered"):
            check(manifest, files=own | {name: b"another"}, engine=engine)
        with pytest.raises(ProgramRejected, match=f"lacks the file '{name}'"):
            check(manifest, files={"labels.txt": both["labels.txt"]}, engine=engine)
    with pytest.raises(ProgramRejected, match=r"has no 'graph\.safetensors', which the engine 'interpreted' runs"):
        check(engine="interpreted")


def test_a_graph_is_not_bound_to_an_executorch() -> None:
    files = {"graph.safetensors": b"a graph"}
    manifest = dataclasses.replace(MANIFEST, executorch="0.1", files={n: FileEntry.of(c) for n, c in files.items()})
    manifest = dataclasses.replace(manifest, files={**manifest.files, "program.pte": FileEntry.of(b"")})
    assert check(manifest, files=files, engine="interpreted").executorch == "0.1"
    with pytest.raises(ProgramRejected, match=r"ExecuTorch 0\.1"):
        check(manifest, files={"program.pte": b""})
