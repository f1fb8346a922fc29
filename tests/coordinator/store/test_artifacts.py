"""A file stays as long as a row names it, or will in a moment."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from coordinator.errors import StoreError, StoreUnavailable
from coordinator.store.artifacts import Artifacts, disk_available


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_a_file_is_collected_once_no_row_names_it_and_none_is_about_to(tmp_path: Path) -> None:
    artifacts = Artifacts(tmp_path)
    artifacts.put(b"named", b"unnamed", b"waiting")
    assert artifacts.unnamed == {digest(b"named"), digest(b"unnamed"), digest(b"waiting")}
    artifacts.named([digest(b"named"), digest(b"unnamed")])
    assert artifacts.unnamed == {digest(b"waiting")}
    assert artifacts.collect({digest(b"named")}) == 1
    assert {path.name for path in tmp_path.iterdir()} == {digest(b"named"), digest(b"waiting")}


def test_a_file_that_is_forgotten_is_gone_and_no_other(tmp_path: Path) -> None:
    artifacts = Artifacts(tmp_path)
    first, middle, last = sorted((b"one", b"two", b"three"), key=digest)
    artifacts.put(first, middle, last)
    artifacts.forget(digest(middle))
    artifacts.forget("0" * 64)
    artifacts.forget("f" * 64)
    assert [artifacts.verified(digest(content)).read_bytes() for content in (first, last)] == [first, last]
    with pytest.raises(StoreError, match="is missing"):
        artifacts.path(digest(middle))


def test_whatever_ails_a_disk_is_one_error() -> None:
    with pytest.raises(StoreUnavailable, match="cannot be used just now"), disk_available():
        raise OSError(28, "No space left on device")
