"""Objects are what was put first, whole, wherever they are: in a folder, or in S3."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import resource
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from coordinator.errors import ConfigError, StoreError, StoreUnavailable
from coordinator.store.objects import folder, s3
from coordinator.store.objects.folder import FolderObjects
from coordinator.store.objects.interface import Objects
from coordinator.store.objects.open import open_objects
from coordinator.store.postgres import Address, PostgresStore
from coordinator.store.postgres.updates import LARGE_BYTES
from coordinator.store.records import MergedUpdate
from mobile_sdk.protocol.messages import ArtifactRef, Sha256

from ...s3_server import S3Server
from .filled import fill, update, version


@pytest.fixture(params=["folder", "s3"])
def objects(request: pytest.FixtureRequest, tmp_path: Path) -> Objects:
    """An empty place of each kind in turn."""
    if request.param == "folder":
        return open_objects(str(tmp_path / "objects"))
    return open_objects(request.getfixturevalue("s3_bucket"))


def test_the_first_who_puts_an_object_wins(objects: Objects) -> None:
    assert objects.put_if_absent("artifacts/a", b"the first")
    assert not objects.put_if_absent("artifacts/a", b"the second")
    assert objects.get("artifacts/a") == b"the first"
    assert objects.put_if_absent("artifacts/b", memoryview(b""))
    assert objects.get("artifacts/b") == b""


def test_of_many_who_put_at_once_one_wins(objects: Objects) -> None:
    won: list[int] = []

    def put(number: int) -> None:
        if objects.put_if_absent("updates/x", bytes([number]) * 100_000):
            won.append(number)

    threads = [threading.Thread(target=put, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (number,) = won
    assert objects.get("updates/x") == bytes([number]) * 100_000


def test_who_puts_an_object_while_another_does_so_hears_that_it_came_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects, other = FolderObjects(tmp_path), FolderObjects(tmp_path)

    def sync(descriptor: int) -> None:
        monkeypatch.undo()
        assert other.put_if_absent("artifacts/a", b"the first")

    monkeypatch.setattr(folder, "sync_file", sync)
    assert not objects.put_if_absent("artifacts/a", b"the second")
    assert objects.get("artifacts/a") == b"the first"
    assert [path.name for path in (tmp_path / "artifacts").iterdir()] == ["a"]


def test_an_object_that_cannot_even_be_begun_is_refused_in_the_systems_words(tmp_path: Path) -> None:
    objects = FolderObjects(tmp_path)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    with (tmp_path / "last").open("wb") as last:
        resource.setrlimit(resource.RLIMIT_NOFILE, (last.fileno() + 1, before[1]))
        try:
            with pytest.raises(StoreUnavailable, match=r"cannot be used just now: .*Too many open files"):
                objects.put_if_absent("artifacts/a", b"content")
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_part_of_an_object_is_read_alone(objects: Objects) -> None:
    objects.put_if_absent("updates/x", bytes(range(100)))
    assert objects.range("updates/x", 10, 5) == bytes(range(10, 15))
    assert objects.range("updates/x", 95, 50) == bytes(range(95, 100))


def test_an_object_that_is_not_there_is_named(objects: Objects) -> None:
    objects.put_if_absent("artifacts/a", b"content")
    for _ in range(2):
        objects.delete("artifacts/a")
    for read in (lambda: objects.get("artifacts/a"), lambda: objects.range("artifacts/a", 0, 1)):
        with pytest.raises(StoreError, match="artifacts/a") as raised:
            read()
        assert not isinstance(raised.value, StoreUnavailable), "trying again does not help"
    assert objects.put_if_absent("artifacts/a", b"again")


def test_a_server_that_is_away_is_no_lost_object(
    monkeypatch: pytest.MonkeyPatch, s3_bucket: str, unused_port: int
) -> None:
    monkeypatch.setattr(s3, "RETRIES", 0)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{unused_port}")
    objects = open_objects(s3_bucket)
    with pytest.raises(StoreUnavailable, match=r"cannot be used just now: .*artifacts/a.*") as raised:
        objects.get("artifacts/a")
    assert "a secret of the bucket" not in str(raised.value)


def test_what_a_server_says_is_cut_where_a_line_of_the_log_would_become_a_page() -> None:
    assert s3._first_line(OSError("a" * 301 + "\nand more")) == "a" * 300
    assert s3._first_line(OSError("short\nand more")) == "short"


def test_what_s3_needs_is_named_where_it_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "coordinator.store.objects.s3", None)
    with pytest.raises(ConfigError, match=r"'s3://bucket/x' needs obstore: install it with `pip install 'ftte\[s3\]'`"):
        open_objects("s3://bucket/x")


def test_a_folder_is_named_by_its_path_or_by_its_url(tmp_path: Path) -> None:
    open_objects(f"file://{tmp_path}/objects").put_if_absent("updates/x", b"content")
    assert open_objects(str(tmp_path / "objects")).get("updates/x") == b"content"


@pytest.mark.parametrize("status", [401, 403])
def test_a_bucket_that_lets_nobody_in_says_which_variables_to_look_at(
    s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    class Refuses(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()

        def log_message(self, *words: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Refuses) as server, ThreadPoolExecutor() as threads:
        answer = threads.submit(server.handle_request)
        for name, value in s3_server.environment().items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        with pytest.raises(StoreUnavailable, match=r"lets nobody in with these credentials: .*; see AWS_ACCESS_KEY_ID"):
            open_objects("s3://bucket/runs").get("artifacts/a")
        answer.result(60)


@pytest.fixture
def unused_port() -> int:
    """A port that nobody listens on."""
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def test_what_is_no_address_of_objects_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"store\.objects = 'ftp://host/x': write s3://bucket/prefix, or a folder"):
        open_objects("ftp://host/x")


def test_a_large_update_goes_to_s3_and_is_deleted_there_with_its_merge(
    postgres_database: str, s3_bucket: str, tmp_path: Path
) -> None:
    objects = open_objects(s3_bucket)
    store = PostgresStore(Address(postgres_database), tmp_path.name, tmp_path / "state", objects)
    try:
        fill(store)
        large = update(store, b"x" * (LARGE_BYTES + 1))
        store.updates.accept([large])
        key = f"updates/{large[0].assignment}.{large[0].artifact.sha256}"
        assert objects.get(key) == large[1]
        assert store.updates.content(large[0].assignment) == large[1]
        store.versions.commit(version(1), [MergedUpdate(large[0].assignment, 0, 1.0)])
        with pytest.raises(StoreError, match="has no object"):
            objects.get(key)
    finally:
        store.close()


def open_machine(database: str, run: str, folder: Path, objects: Objects, **options: Any) -> PostgresStore:
    """A process on a machine of its own, with a disk of its own."""
    return PostgresStore(Address(database), run, folder, objects, **options)


def test_an_artifact_is_fetched_by_a_machine_that_has_no_copy_and_kept_there(
    objects: Objects, postgres_database: str, tmp_path: Path
) -> None:
    with (
        contextlib.closing(open_machine(postgres_database, tmp_path.name, tmp_path / "one", objects)) as leader,
        contextlib.closing(
            open_machine(postgres_database, tmp_path.name, tmp_path / "two", objects, leading=False)
        ) as other,
    ):
        first, second = leader.artifacts.put(b"the first", b"the second")
        for entry, find in ((first, other.artifacts.path), (second, other.artifacts.verified)):
            path = find(entry.sha256)
            assert path.is_relative_to(tmp_path / "two")
            assert hashlib.sha256(path.read_bytes()).hexdigest() == entry.sha256
            objects.delete(f"artifacts/{entry.sha256}")
            assert find(entry.sha256) == path, "from its own disk from then on"


def test_a_copy_that_the_disk_damaged_is_fetched_again(
    objects: Objects, postgres_database: str, tmp_path: Path
) -> None:
    with contextlib.closing(open_machine(postgres_database, tmp_path.name, tmp_path / "one", objects)) as store:
        (entry,) = store.artifacts.put(b"weights")
        store.artifacts.path(entry.sha256).write_bytes(b"damaged")
        assert store.artifacts.verified(entry.sha256).read_bytes() == b"weights"
        assert store.artifacts.path(entry.sha256).read_bytes() == b"weights"


def test_an_artifact_that_is_damaged_or_missing_everywhere_is_named(
    objects: Objects, postgres_database: str, tmp_path: Path
) -> None:
    # Bytes of a lower hash in place of those of a higher one, and the other way around.
    (low, missing, high) = sorted((b"one", b"two", b"three"), key=lambda content: hashlib.sha256(content).hexdigest())
    low_hash, missing_hash, high_hash = (hashlib.sha256(content).hexdigest() for content in (low, missing, high))
    objects.put_if_absent(f"artifacts/{low_hash}", high)
    objects.put_if_absent(f"artifacts/{high_hash}", low)
    with contextlib.closing(open_machine(postgres_database, tmp_path.name, tmp_path / "one", objects)) as store:
        for find in (store.artifacts.path, store.artifacts.verified):
            for damaged in (low_hash, high_hash):
                with pytest.raises(
                    StoreError, match=f"the object artifacts/{damaged} is damaged: restore it from a backup"
                ):
                    find(damaged)
            with pytest.raises(StoreError, match=f"artifacts/{missing_hash}"):
                find(missing_hash)
    assert [path.name for path in (tmp_path / "one" / "artifacts").iterdir()] == []


def test_a_copy_that_was_fetched_is_removed_once_no_row_wants_it_and_its_object_is_left_to_the_leader(
    objects: Objects, postgres_database: str, tmp_path: Path
) -> None:
    with (
        contextlib.closing(
            open_machine(postgres_database, tmp_path.name, tmp_path / "one", objects, grace_seconds=0.0)
        ) as leader,
        contextlib.closing(
            open_machine(postgres_database, tmp_path.name, tmp_path / "two", objects, leading=False)
        ) as other,
    ):
        wanted, old = leader.artifacts.put(b"wanted", b"old")
        fill(leader)
        for entry, number in ((old, 1), (wanted, 2)):
            ref = ArtifactRef(Sha256(entry.sha256), entry.size)
            leader.versions.commit(dataclasses.replace(version(number), weights=(ref,)), [])
        for entry in (wanted, old):
            other.artifacts.verified(entry.sha256)
        assert leader.versions.prune(lambda versions: {2}, since=9.0) == [0, 1]
        assert other.collect() == 1
        assert [path.name for path in (tmp_path / "two" / "artifacts").iterdir()] == [wanted.sha256]
        assert objects.get(f"artifacts/{old.sha256}") == b"old"
        assert leader.collect() == 1
        with pytest.raises(StoreError, match=old.sha256):
            objects.get(f"artifacts/{old.sha256}")
        assert other.artifacts.verified(wanted.sha256).read_bytes() == b"wanted"
