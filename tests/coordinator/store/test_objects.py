"""Objects are what was put first, whole, wherever they are: in a folder, or in S3."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from coordinator.errors import ConfigError, StoreError, StoreUnavailable
from coordinator.store.objects import s3
from coordinator.store.objects.interface import Objects
from coordinator.store.objects.open import open_objects
from coordinator.store.postgres import Address, PostgresStore
from coordinator.store.postgres.updates import LARGE_BYTES
from coordinator.store.records import MergedUpdate

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
