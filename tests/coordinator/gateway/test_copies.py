"""Files are copied once, whole, and the oldest copies make room."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from coordinator.errors import StoreUnavailable
from coordinator.gateway.copies import LEAST_FILES, Copies


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class Origin:
    """Gives files in two pieces, and counts how often."""

    def __init__(self, *contents: bytes) -> None:
        self.contents = {digest(content): content for content in contents}
        self.fetched: list[str] = []

    def __call__(self, sha256: str) -> Iterator[bytes]:
        self.fetched.append(sha256)
        content = self.contents[sha256]
        yield content[:2]
        yield content[2:]


def test_a_file_is_fetched_once_for_all_who_ask_at_the_same_time(tmp_path: Path) -> None:
    origin, copies = Origin(b"weights"), Copies(tmp_path)
    asking = [threading.Thread(target=copies.path, args=(digest(b"weights"), origin)) for _ in range(8)]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join()
    assert origin.fetched == [digest(b"weights")]
    assert copies.path(digest(b"weights"), origin).read_bytes() == b"weights"


def test_what_comes_with_another_hash_is_not_kept(tmp_path: Path) -> None:
    origin, copies = Origin(), Copies(tmp_path)
    origin.contents[digest(b"weights")] = b"weighty"
    with pytest.raises(StoreUnavailable, match="another hash"):
        copies.path(digest(b"weights"), origin)
    assert not list(tmp_path.iterdir())
    origin.contents[digest(b"weights")] = b"weights"
    assert copies.path(digest(b"weights"), origin).read_bytes() == b"weights"


def test_copies_of_an_earlier_gateway_are_used_unless_they_are_damaged(tmp_path: Path) -> None:
    good, bad = digest(b"good"), digest(b"bad")
    (tmp_path / good).write_bytes(b"good")
    (tmp_path / bad).write_bytes(b"torn")
    origin, copies = Origin(b"good", b"bad"), Copies(tmp_path)
    assert copies.path(good, origin).read_bytes() == b"good"
    assert copies.path(bad, origin).read_bytes() == b"bad"
    assert origin.fetched == [bad]


def test_the_copies_that_were_not_used_for_longest_make_room(tmp_path: Path) -> None:
    contents = [bytes([number]) * 10 for number in range(LEAST_FILES + 2)]
    origin, copies = Origin(*contents), Copies(tmp_path, most_bytes=10 * LEAST_FILES)
    for content in contents[:LEAST_FILES]:
        copies.path(digest(content), origin)
    copies.path(digest(contents[0]), origin)
    for content in contents[LEAST_FILES:]:
        copies.path(digest(content), origin)
    gone = {digest(content) for content in contents} - {path.name for path in tmp_path.iterdir()}
    assert gone == {digest(contents[1]), digest(contents[2])}
