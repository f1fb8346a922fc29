"""What the store in PostgreSQL promises beside what every store does: one leader, no secret told, nothing in doubt."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import inspect
import logging
import re
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from asyncpg.types import ServerVersion

from coordinator.errors import ConfigError, LedElsewhere, StoreError, StoreUnavailable, Superseded
from coordinator.store.objects.folder import FolderObjects
from coordinator.store.postgres import Address, PostgresStore, database, kept_objects, leading, schema_name
from coordinator.store.postgres.devices import device_model
from coordinator.store.postgres.leader import LeaderAddress
from coordinator.store.postgres.lease import LeaseRow
from coordinator.store.postgres.updates import LARGE_BYTES
from coordinator.store.records import AssignmentRequest, DiscardedUpdate, MergedUpdate, UpdateRecord
from coordinator.store.tables import TABLES
from mobile_sdk.manifest import FileEntry

from ...postgres_server import PASSWORD, PostgresServer
from .assigning import assign
from .filled import fill, update, version


@pytest.fixture
def open_one(postgres_database: str, tmp_path: Path) -> Iterator[Callable[..., PostgresStore]]:
    """Opens the run of the test, as a process of its own would."""
    opened: list[PostgresStore] = []

    def open_store(**options: Any) -> PostgresStore:
        store = PostgresStore(Address(postgres_database), tmp_path.name, tmp_path / str(len(opened)), **options)
        opened.append(store)
        return store

    yield open_store
    for store in opened:
        store.close()


@pytest.fixture
def naps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """For how long coroutines have slept; none of them for longer than a moment."""
    sleep, slept = asyncio.sleep, list[float]()

    async def nap(seconds: float) -> None:
        slept.append(seconds)
        await sleep(min(seconds, 0.01))

    monkeypatch.setattr(asyncio, "sleep", nap)
    return slept


def query(address: str, *statements: str) -> None:
    """Run statements as an operator would with psql."""

    async def run() -> None:
        connection = await asyncpg.connect(address)
        try:
            for statement in statements:
                await connection.execute(statement)
        finally:
            await connection.close()

    asyncio.run(run())


# One leader.

WRITES: dict[str, Callable[[PostgresStore], Any]] = {
    "commit": lambda store: store.versions.commit(version(1), []),
    "discard": lambda store: store.updates.discard([DiscardedUpdate("a00000001", "stale")]),
    "accept": lambda store: store.updates.accept([update(store)]),
    "assign": lambda store: store.assignments.assign([AssignmentRequest("phone-1", 0, "small", 1.0)]),
    "phase": lambda store: store.set_phase("paused", "", 1.0, by="anna"),
    "enrol": lambda store: store.devices.enrol("phone-2", b"s" * 32, 1.0),
    "withdraw": lambda store: store.devices.withdraw("phone-1", 1.0, by="anna"),
    "audit": lambda store: store.audit.write(1.0, "anna", "tested", "it", {}),
}


@pytest.mark.parametrize("name", WRITES)
def test_a_leader_that_has_a_successor_writes_nothing(open_one: Callable[..., PostgresStore], name: str) -> None:
    stopped, successor = open_one(leading=False), open_one(leading=False)
    fill(stopped)
    first = stopped.lease.take("the first", 0.0)
    second = successor.lease.take("the second", 60.0)
    assert first is not None
    assert second == first + 1
    before = successor.audit.entries(), successor.versions.all(), successor.devices.all(), successor.assignments.open()
    with pytest.raises(Superseded, match="another process leads the run"):
        WRITES[name](stopped)
    assert stopped.lease.look()
    assert stopped.lease.lost
    assert not successor.lease.lost
    assert not stopped.lease.renew(60.0)
    assert before == (
        successor.audit.entries(),
        successor.versions.all(),
        successor.devices.all(),
        successor.assignments.open(),
    )
    WRITES["assign"](successor)


def test_a_lease_that_has_run_out_is_renewed_where_nobody_took_it(open_one: Callable[..., PostgresStore]) -> None:
    store = open_one(leading=False)
    fill(store)
    store.lease.take("the first", 0.0)
    assert store.lease.current() is None
    store.versions.commit(version(1), [])
    assert store.lease.renew(60.0)
    holder = store.lease.current()
    assert holder is not None
    assert 50 < holder.seconds_left <= 60


def test_whoever_waits_leads_at_once_where_the_leader_was_killed(open_one: Callable[..., PostgresStore]) -> None:
    leader, waiting = open_one(leading=False), open_one(leading=False)
    first = leader.lease.take("the first", 600.0)
    assert [waiting.lease.take("the second", 60.0) for _ in range(4)] == [None] * 4
    leader.database.epoch = None  # it gives nothing back
    leader.close()
    assert [waiting.lease.take("the second", 60.0) for _ in range(2)] == [None] * 2
    assert first is not None
    assert waiting.lease.take("the second", 60.0) == first + 1
    assert not waiting.lease.lost


def test_a_leader_that_was_never_seen_is_waited_for(open_one: Callable[..., PostgresStore]) -> None:
    """The server has restarted, say, and its connections are to come back."""
    leader, waiting = open_one(leading=False), open_one(leading=False)
    leader.lease.take("the first", 600.0)
    leader.database.epoch = None
    leader.close()
    assert [waiting.lease.take("the second", 60.0) for _ in range(6)] == [None] * 6


def test_what_a_leader_begins_with_is_read_once_until_it_writes(
    open_one: Callable[..., PostgresStore], postgres_database: str
) -> None:
    """Another question would find what an operator changes by hand meanwhile; what it writes itself it finds."""
    store = open_one()
    fill(store)
    given = [update(store, content) for content in (b"one", b"two")]
    store.updates.accept(given)

    def read() -> list[Any]:
        waiting = [(record, store.updates.content(record.assignment)) for record in store.updates.buffered()]
        everything: list[Any] = [store.run(), store.tiers(), store.phase(), store.versions.all(), store.devices.all()]
        return [*everything, store.versions.latest(), store.assignments.open(), store.updates.merged(), *waiting]

    expected = read()
    assert [content for _, content in expected[-2:]] == [b"one", b"two"]
    with store.read_ahead():
        query(postgres_database, f'DELETE FROM "{store.database.schema}".contents')
        assert read() == expected
        store.set_phase("paused", "to look", 2.0, by="anna")
        assert store.phase() == ("paused", "to look")
        with pytest.raises(StoreError, match="damaged"):
            read()


def test_two_coordinators_cannot_lead_one_run(
    open_one: Callable[..., PostgresStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leading, "PATIENCE_SECONDS", 0.2)
    first = open_one()
    threads = set(threading.enumerate())
    with pytest.raises(StoreError, match=r"another coordinator \(.*, process \d+\) uses the run .*: stop it first"):
        open_one()
    assert set(threading.enumerate()) == threads, "what was begun is ended"
    first.close()
    assert open_one().lease.current() is not None


def test_runs_of_one_database_do_not_know_each_other(postgres_database: str, tmp_path: Path) -> None:
    stores = [
        PostgresStore(Address(postgres_database), f"{tmp_path.name}-{number}", tmp_path / str(number))
        for number in range(2)
    ]
    try:
        fill(stores[0])
        assert stores[1].run() is None
        assert stores[1].devices.all() == []
        assert all(store.lease.current() is not None for store in stores)
    finally:
        for store in stores:
            store.close()


def test_the_longest_names_of_runs_have_schemas_of_their_own() -> None:
    names = [schema_name("a" * 63 + end) for end in "ab"] + [schema_name("digits")]
    assert names[2] == "ftte_digits"
    assert len(set(names)) == 3
    assert max(map(len, names)) == 63
    assert schema_name("a" * 58) == "ftte_" + "a" * 58, "as long as PostgreSQL takes it"
    assert schema_name("a" * 59).startswith("ftte_" + "a" * 41 + "_")


def test_who_stands_by_says_once_who_leads_until_told_to_give_up(
    open_one: Callable[..., PostgresStore], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(leading, "PATIENCE_SECONDS", 0.0)
    monkeypatch.setattr(leading, "POLL_SECONDS", 0.01)
    heard, giving_up = list[str](), threading.Event()

    def stand_by() -> None:
        heard.append("stands by")
        giving_up.set()

    open_one()
    with pytest.raises(LedElsewhere, match=r"another coordinator \(.*, process \d+\) uses the run"):
        open_one(standby=giving_up, waits=lambda: heard.append("waits"), stands_by=stand_by)
    assert heard == ["waits", "stands by"]
    (line,) = [record.getMessage() for record in caplog.records]
    assert re.fullmatch(r"another coordinator \(.*, process \d+\) leads the run .*: waiting to take over", line)


def test_who_is_told_at_once_to_give_up_has_said_nothing(
    open_one: Callable[..., PostgresStore], caplog: pytest.LogCaptureFixture
) -> None:
    giving_up, stood_by = threading.Event(), threading.Event()
    open_one()
    with pytest.raises(LedElsewhere, match="uses the run"):
        open_one(standby=giving_up, waits=giving_up.set, stands_by=stood_by.set)
    assert not stood_by.is_set(), "the leader may be about to end"
    assert caplog.text == ""


def test_who_does_not_stand_by_says_only_that_another_leads(
    open_one: Callable[..., PostgresStore], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(leading, "PATIENCE_SECONDS", 0.0)
    stood_by = threading.Event()
    open_one()
    with pytest.raises(LedElsewhere, match=r"another coordinator \("):
        open_one(stands_by=stood_by.set)
    assert not stood_by.is_set()
    assert caplog.text == ""

    def away(lease: LeaseRow) -> None:
        raise StoreUnavailable("the database is away")

    monkeypatch.setattr(LeaseRow, "current", away)
    with pytest.raises(LedElsewhere, match="another coordinator uses the run"):
        open_one()


@pytest.mark.parametrize("stands_by", [True, False])
def test_who_stands_by_waits_for_a_database_that_is_away_and_nobody_else_does(
    open_one: Callable[..., PostgresStore], monkeypatch: pytest.MonkeyPatch, stands_by: bool
) -> None:
    take, away = LeaseRow.take, [StoreUnavailable("the database is away")] * 3

    def late(lease: LeaseRow, holder: str, seconds: float) -> int | None:
        if away:
            raise away.pop()
        return take(lease, holder, seconds)

    monkeypatch.setattr(LeaseRow, "take", late)
    if stands_by:
        assert open_one(standby=threading.Event()).lease.current() is not None
        assert away == []
    else:
        with pytest.raises(StoreUnavailable, match="the database is away"):
            open_one()
        assert len(away) == 2


def test_a_server_that_gives_no_connection_is_not_urged_and_a_lease_is_renewed_well_before_it_ends(
    open_one: Callable[..., PostgresStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    sleep = asyncio.sleep
    pauses = {101.0: "to watch", 102.0: "to stay warm", 0.011: "to guard", 1.0: "to renew"}
    waits = {name: threading.Event() for name in pauses.values()}

    async def nap(seconds: float) -> None:
        if seconds in pauses:
            waits[pauses[seconds]].set()
        await sleep(min(seconds, 0.01))

    @contextlib.asynccontextmanager
    async def refuse(store: database.Database, **settings: str) -> AsyncIterator[None]:
        raise ConnectionRefusedError("no more connections")
        yield

    monkeypatch.setattr(asyncio, "sleep", nap)
    monkeypatch.setattr(database.Database, "own_connection", refuse)
    for name, seconds in (("AWAKE", 101.0), ("WARM", 102.0), ("POLL", 0.011), ("LEASE", 3.0)):
        monkeypatch.setattr(leading, f"{name}_SECONDS", seconds)
    open_one()
    giving_up = threading.Event()
    with ThreadPoolExecutor() as threads:
        standing_by = threads.submit(open_one, standby=giving_up)
        for name in ("to guard", "to renew", "to watch", "to stay warm"):
            assert waits[name].wait(60), name
        giving_up.set()
        with pytest.raises(LedElsewhere):
            standing_by.result(60)


def test_a_patience_outlasts_a_lease_that_was_renewed_just_before_its_holder_died() -> None:
    assert leading.PATIENCE_SECONDS > leading.LEASE_SECONDS + 1


def test_two_transactions_that_wait_for_each_other_both_happen_once(open_one: Callable[..., PostgresStore]) -> None:
    store = open_one()
    fill(store)
    store.devices.enrol("phone-2", b"t" * 32, 1.0)
    began, both = list[str](), asyncio.Event()

    async def work(rows: Any, order: tuple[str, str]) -> None:
        await rows.execute("SET LOCAL deadlock_timeout = '10ms'")
        for device in order:
            await rows.execute("UPDATE devices SET failures = failures + 1 WHERE id = $1", device)
            if device == order[0]:
                began.append(device)
                if len(began) == 2:
                    both.set()
                await both.wait()

    def transact(order: tuple[str, str]) -> None:
        store.database.transact(lambda rows: work(rows, order))

    with ThreadPoolExecutor() as threads:
        list(threads.map(transact, [("phone-1", "phone-2"), ("phone-2", "phone-1")]))
    assert [device.failures for device in store.devices.all()] == [2, 2]
    assert len(began) == 3, "one of them began anew"


# Refusals.


def test_no_message_and_no_log_line_has_the_password(
    postgres_server: PostgresServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    good = postgres_server.address()
    for address, words in (
        (good.replace("/postgres?", "/nowhere?"), "has no database"),
        (good.replace("ftte:", "nobody:"), "lets this user not in"),
        ("https" + good.removeprefix("postgresql"), "is no address of a database"),
    ):
        with pytest.raises((StoreError, ConfigError), match=words) as raised:
            PostgresStore(Address(address), "digits", tmp_path / "state")
        said = f"{raised.value!r} {raised.value.__cause__!r} {caplog.text}"
        assert PASSWORD not in said
        assert "a%20secret" not in said
    assert PASSWORD not in repr(Address(good))


def test_a_schema_of_a_newer_release_is_refused(postgres_database: str, open_one: Callable[..., PostgresStore]) -> None:
    store = open_one()
    query(postgres_database, f'UPDATE "{store.database.schema}".schema_version SET number = 99')
    store.close()
    threads = set(threading.enumerate())
    with pytest.raises(StoreError, match=r"is number 99, this coordinator knows up to \d+: run the FTTE version"):
        open_one()
    assert set(threading.enumerate()) == threads, "what was begun is ended"


def test_a_schema_of_the_release_before_is_brought_up_to_date(
    postgres_database: str, open_one: Callable[..., PostgresStore]
) -> None:
    store = open_one()
    fill(store)
    schema = store.database.schema
    store.close()
    query(
        postgres_database,
        f'ALTER TABLE "{schema}".lease DROP COLUMN address',
        f'UPDATE "{schema}".schema_version SET number = 1',
    )
    store = open_one()
    assert store.versions.latest().version == 0
    store.lease.announce("here:1")
    lease = store.lease.current()
    assert lease is not None
    assert lease.address == "here:1"


def test_a_gateway_finds_the_leader_and_its_successor_in_the_lease(
    postgres_database: str, tmp_path: Path, open_one: Callable[..., PostgresStore]
) -> None:
    async def main() -> None:
        leader = LeaderAddress(Address(postgres_database), tmp_path.name)
        assert await leader.find() == "", "there is no run yet"
        store = await asyncio.to_thread(open_one)
        assert await leader.find() == "", "who leads does not listen yet"
        await asyncio.to_thread(store.lease.announce, "one:1")
        assert await leader.find() == "one:1"
        await asyncio.to_thread(store.close)
        assert await leader.find() == "", "nobody leads"
        successor = await asyncio.to_thread(open_one)
        await asyncio.to_thread(successor.lease.announce, "two:2")
        assert await leader.find() == "two:2"
        await leader.close()

    asyncio.run(main())


def test_a_gateways_user_needs_no_right_but_to_look_at_the_lease(
    postgres_server: PostgresServer, postgres_database: str, open_one: Callable[..., PostgresStore], tmp_path: Path
) -> None:
    store = open_one()
    store.lease.announce("one:1")
    schema = store.database.schema
    query(
        postgres_database,
        f"CREATE USER gateway PASSWORD '{PASSWORD}'",
        f'GRANT USAGE ON SCHEMA "{schema}" TO gateway',
        f'GRANT SELECT ON "{schema}".lease TO gateway',
    )
    address = postgres_database.replace("//ftte:", "//gateway:")

    async def find() -> str:
        leader = LeaderAddress(Address(address), tmp_path.name)
        try:
            return await leader.find()
        finally:
            await leader.close()

    assert asyncio.run(find()) == "one:1"
    for table in ("devices", "run", "updates"):
        with pytest.raises(asyncpg.exceptions.InsufficientPrivilegeError):
            query(address, f'SELECT * FROM "{schema}".{table}')


def test_a_database_that_is_away_is_named_without_its_password(tmp_path: Path) -> None:
    leader = LeaderAddress(Address(f"postgresql://ftte:hidden@/ftte?host={tmp_path}"), "small")
    with pytest.raises(StoreUnavailable, match="cannot be used just now") as raised:
        asyncio.run(leader.find())
    assert "hidden" not in str(raised.value)


@pytest.mark.parametrize(("given", "kept"), [("off", "on"), ("local", "local"), ("remote_apply", "remote_apply")])
def test_what_is_committed_is_on_the_disk_whatever_the_server_is_set_to(
    postgres_server: PostgresServer, tmp_path: Path, given: str, kept: str
) -> None:
    address = postgres_server.database()
    name = Address(address).__str__().rpartition("/")[2]
    query(address, f"ALTER DATABASE {name} SET synchronous_commit = {given}")
    with contextlib.closing(PostgresStore(Address(address), "digits", tmp_path / "state")) as store:
        assert [tuple(row) for row in store.database.rows("SHOW synchronous_commit")] == [(kept,)]


def test_two_processes_may_begin_a_run_at_once(open_one: Callable[..., PostgresStore]) -> None:
    with ThreadPoolExecutor(3) as threads:
        stores = list(threads.map(lambda _: open_one(leading=False), range(3)))
    assert {store.database.schema for store in stores} == {stores[0].database.schema}


@pytest.mark.parametrize(
    ("url", "words", "password"),
    [
        ("postgresql://u:p@h:5/d", "h:5/d", "p"),
        ("postgres://u@h/d", "h/d", ""),
        ("postgresql:///d", "this machine/d", ""),
        ("postgresql:///?host=h&port=5&dbname=d&password=p", "h:5/d", "p"),
        ("postgresql://h?database=d&password=p&password=q", "h/d", "p"),
        ("postgresql://h:6/e?host=g&port=5&dbname=d", "h:6/e", ""),
        ("postgresql://", "this machine", ""),
    ],
)
def test_an_address_is_named_by_host_port_and_database(url: str, words: str, password: str) -> None:
    address = Address(url)
    assert (str(address), repr(address), address.password) == (words, f"Address({words!r})", password)
    assert address.hide(f"no entry: {password or 'p'}") == ("no entry: ***" if password else "no entry: p")


@pytest.mark.parametrize("url", ["https://h/d", "postgresql://h:port/d", "postgresql://[h/d", "h", ""])
def test_what_is_no_address_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(
        ConfigError, match=r"^store\.postgres is no address of a database: write postgresql://user@host"
    ):
        Address(url)


def test_a_model_is_searched_for_as_far_as_it_is_text() -> None:
    profiles: list[dict[str, Any]] = [{"model": "x\0y"}, {"model": "\ud800"}, {"model": 7}, {}]
    assert [device_model(profile) for profile in profiles] == ["xy", "?", "", ""]


def test_tables_that_are_not_ours_are_left_alone(postgres_database: str, tmp_path: Path) -> None:
    schema = schema_name(tmp_path.name)
    query(postgres_database, f'CREATE SCHEMA "{schema}"', f'CREATE TABLE "{schema}".devices (id int)')
    with pytest.raises(StoreError, match="tables that are not FTTE's"):
        PostgresStore(Address(postgres_database), tmp_path.name, tmp_path / "state")


def test_the_audit_log_cannot_be_changed_unnoticed(
    postgres_database: str, open_one: Callable[..., PostgresStore]
) -> None:
    store = open_one()
    fill(store)
    log = f'"{store.database.schema}".audit'
    for attack in (f"UPDATE {log} SET actor = 'eve'", f"DELETE FROM {log}", f"TRUNCATE {log}"):
        with pytest.raises(asyncpg.PostgresError, match="append-only"):
            query(postgres_database, attack)
    query(postgres_database, f"ALTER TABLE {log} DISABLE TRIGGER audit_is_not_changed")
    for name in ("eve", "mallory", "trudy", "oscar", "craig", "walter"):  # of higher and lower hashes
        query(postgres_database, f"UPDATE {log} SET actor = '{name}' WHERE number = 2")
        with pytest.raises(StoreError, match="line 2 of the audit log"):
            store.audit.entries()


# Bytes of updates.


@pytest.mark.parametrize("size", [1, 262_144, 262_145, 3_000_000])
def test_an_update_of_any_size_comes_back_and_is_erased_with_its_merge(
    open_one: Callable[..., PostgresStore], tmp_path: Path, size: int
) -> None:
    store = open_one()
    fill(store)
    merged, waiting = update(store, b"m" * size), update(store, b"w" * size)
    store.updates.accept([merged, waiting])
    objects = [path for path in tmp_path.rglob("updates/*") if path.is_file()]
    assert LARGE_BYTES == 262_144
    assert len(objects) == (2 if size > LARGE_BYTES else 0)
    assert store.updates.content(merged[0].assignment) == b"m" * size
    store.versions.commit(version(1), [MergedUpdate(merged[0].assignment, 0, 1.0)])
    assert store.updates.content(waiting[0].assignment) == b"w" * size
    assert len([path for path in objects if path.exists()]) == (1 if size > LARGE_BYTES else 0)
    assert len(store.database.rows("SELECT 1 FROM contents")) == (0 if size > LARGE_BYTES else 1)


def test_an_update_that_was_changed_in_the_database_is_told_from_a_good_one(
    open_one: Callable[..., PostgresStore],
) -> None:
    store = open_one()
    fill(store)
    first, last = update(store, b"the first"), update(store, b"the last")
    store.updates.accept([first, last])
    for number in range(6):  # of higher and lower hashes
        store.database.transact(
            lambda rows, lost=f"lost {number}": rows.execute(  # type: ignore[misc]
                f"UPDATE contents SET content = '{lost}' WHERE assignment = $1", last[0].assignment
            )
        )
        assert store.updates.content(first[0].assignment) == b"the first"
        with pytest.raises(StoreError, match="damaged"):
            store.updates.content(last[0].assignment)


@pytest.mark.parametrize("again", [False, True], ids=["by whoever leads", "by whoever leads next"])
def test_objects_that_a_crash_left_without_a_row_are_collected(
    open_one: Callable[..., PostgresStore], tmp_path: Path, again: bool
) -> None:
    objects = FolderObjects(tmp_path / "objects")
    store = open_one(objects=objects, grace_seconds=0.0)
    fill(store)
    kept = update(store, b"k" * (LARGE_BYTES + 1))
    store.updates.accept([kept])
    store.updates.keep_objects([("updates/a00000099.left", b"left by a crash")])
    if again:
        store.close()
        open_one(objects=objects, grace_seconds=0.0)
    else:
        store.collect()
    assert [path.name for path in tmp_path.rglob("updates/*")] == [f"{kept[0].assignment}.{kept[0].artifact.sha256}"]


def test_files_that_may_be_another_processs_are_left_alone(
    open_one: Callable[..., PostgresStore], tmp_path: Path
) -> None:
    folder = tmp_path / "1" / "artifacts"
    folder.mkdir(parents=True)
    for name in ("half.new", "ab" * 32):
        (folder / name).write_bytes(b"not ours")
    fill(open_one())
    other = open_one(leading=False)
    assert other.collect() == 0
    assert sorted(path.name for path in folder.iterdir()) == ["ab" * 32, "half.new"]


def test_receipts_of_processes_that_ended_long_ago_are_forgotten(open_one: Callable[..., PostgresStore]) -> None:
    store = open_one()
    old = "INSERT INTO receipts (slot, token, opened_at) VALUES (1, 0, now() - interval '{} days')"
    for days in (31, 29):
        statement = old.format(days).replace("(1,", f"({days},")
        store.database.transact(functools.partial(asyncpg.Connection.execute, query=statement))
    store.collect()
    assert [row[0] for row in store.database.rows("SELECT slot FROM receipts WHERE slot < 99")] == [29]


@pytest.mark.parametrize("size", [7, LARGE_BYTES + 1])
def test_no_row_and_no_object_has_a_trace_of_a_device_that_withdrew(
    open_one: Callable[..., PostgresStore], tmp_path: Path, size: int
) -> None:
    store = open_one()
    fill(store)
    secret = b"a secret of thirty-two bytes ..."
    store.devices.enrol("withdrawn-phone", secret, 1.0)
    store.devices.seen("withdrawn-phone", 2.0, {"model": "a rare model"})
    given = []
    for number in range(2):
        work = assign(store, "withdrawn-phone", 0, "small", 2.0)
        content = bytes([number]) * size
        record = UpdateRecord(work.id, "withdrawn-phone", 0, "small", FileEntry.of(content), {"samples": 4_242}, 3.0)
        given.append((record, content))
    store.updates.accept(given)
    store.versions.commit(version(1), [MergedUpdate(given[0][0].assignment, 0, 1.0)])

    def traces() -> list[str]:
        """What of the device the rows of any table hold, written out as text, and the objects."""
        rows = [str(row[0]) for table in TABLES for row in store.database.rows(f"SELECT t::text FROM {table} AS t")]
        rows += [str(row[0]) for row in store.database.rows("SELECT c::text FROM contents AS c")]
        hidden = ["withdrawn-phone", secret.hex(), "a rare model", "4242", *(one.artifact.sha256 for one, _ in given)]
        objects = [path.name for path in tmp_path.rglob("updates/*") if path.is_file()]
        return [word for word in hidden if any(word in row for row in rows)] + objects

    assert len(traces()) == 6 + (size > LARGE_BYTES)
    assert store.devices.withdraw("withdrawn-phone", 6.0, by="anna") == [given[1][0].assignment]
    assert traces() == []


# A lost connection.

LOST = asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation")


def lose_a_commit(
    monkeypatch: pytest.MonkeyPatch, errors: Sequence[asyncpg.PostgresError | asyncpg.InterfaceError], *, happened: bool
) -> list[str]:
    """The next commit has no answer, and asking what became of it ends in ``errors``; gives what was tried."""
    execute, fetchval = asyncpg.Connection.execute, asyncpg.Connection.fetchval
    left = errors if isinstance(errors, list) else list(errors)
    tried: list[str] = []

    async def lose(connection: Any, statement: str, *arguments: Any, **options: Any) -> Any:
        if statement != "COMMIT" or tried:
            return await execute(connection, statement, *arguments, **options)
        tried.append("commit")
        if happened:
            await execute(connection, statement)
        connection.terminate()
        raise LOST

    async def ask(connection: Any, query: str, *arguments: Any, **options: Any) -> Any:
        if query.startswith("SELECT token"):
            tried.append("ask")
            if left:
                raise left.pop()
        return await fetchval(connection, query, *arguments, **options)

    monkeypatch.setattr(asyncpg.Connection, "execute", lose)
    monkeypatch.setattr(asyncpg.Connection, "fetchval", ask)
    return tried


async def set_receipts(store: PostgresStore, token: int) -> None:
    async with store.database.connection() as connection:
        await connection.execute(f"UPDATE receipts SET token = {token}")


@pytest.mark.parametrize(("happened", "away"), [(True, 0), (False, 0), (True, 2), (False, 2)])
def test_a_commit_whose_answer_was_lost_is_neither_forgotten_nor_repeated(
    open_one: Callable[..., PostgresStore],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    naps: list[float],
    happened: bool,
    away: int,
) -> None:
    store = open_one()
    fill(store)
    accepted = update(store)
    # Of the transaction before: a number of its own, which may be above or below.
    store.database.run(set_receipts(store, 2**63 - 1 if away else 0))
    tried = lose_a_commit(monkeypatch, [LOST] * away, happened=happened)
    assert store.updates.accept([accepted]) == {accepted[0].assignment}, "it is new, and its device hears so"
    assert tried == ["commit", *["ask"] * (away + 1)]
    assert naps.count(database.RETRY_SECONDS) == away, "the server is not urged"
    waits = f"the database {store.database.address} cannot be used just now: {LOST}; waiting for it, to learn what"
    assert caplog.text.count(waits) == min(away, 1), "that it waits is said once"
    assert len(store.updates.buffered()) == 1
    assert store.devices.all()[0].updates == 1


def test_who_closes_the_store_before_it_is_known_what_became_of_a_write_is_told_so(
    open_one: Callable[..., PostgresStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "RETRY_SECONDS", 0.01)
    store = open_one(leading=False)
    fill(store)
    given = update(store)
    asked = threading.Event()

    class Endless(list[Any]):
        def pop(self, index: Any = -1) -> Any:
            asked.set()
            return LOST

    lose_a_commit(monkeypatch, Endless([LOST]), happened=True)
    with ThreadPoolExecutor() as threads:
        accepted = threads.submit(store.updates.accept, [given])
        assert asked.wait(60)
        store.close()
        with pytest.raises(StoreUnavailable, match="was closed before it was known what became of a write"):
            accepted.result(60)


class Repeated:
    """Replaces the answers of a server: those to questions, and whether it takes a connection at all."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, error: BaseException | None = None, *, away: bool) -> None:
        self.asked = list[str]()
        fetch, fetchval = asyncpg.Connection.fetch, asyncpg.Connection.fetchval

        async def answer(connection: Any, query: str, *arguments: Any, **options: Any) -> Any:
            if error is None:
                return await fetch(connection, query, *arguments, **options)
            self.asked.append(query)
            raise error

        async def is_there(connection: Any, query: str, *arguments: Any, **options: Any) -> Any:
            self.asked += [query] if query != "SELECT 1" else []
            if away:
                raise LOST
            return await fetchval(connection, query, *arguments, **options)

        monkeypatch.setattr(asyncpg.Connection, "fetch", answer)
        monkeypatch.setattr(asyncpg.Connection, "fetchval", is_there)


@pytest.mark.parametrize(
    ("error", "away", "times"),
    [(LOST, False, 5), (LOST, True, 1), (TimeoutError(), False, 1), (asyncpg.SerializationError("other"), False, 1)],
    ids=["lost", "away", "late", "refused"],
)
def test_a_question_whose_connection_was_lost_is_asked_again_where_the_server_is_there(
    open_one: Callable[..., PostgresStore], monkeypatch: pytest.MonkeyPatch, error: Exception, away: bool, times: int
) -> None:
    store = open_one(leading=False)
    with monkeypatch.context() as patch:
        server = Repeated(patch, error, away=away)
        with pytest.raises(StoreUnavailable, match="cannot be used just now"):
            store.database.rows("SELECT 7")
    assert server.asked == ["SELECT 7"] * times
    assert [row[0] for row in store.database.rows("SELECT 7")] == [7]


@pytest.mark.parametrize(
    ("error", "away", "times"),
    [
        (LOST, False, 5),
        (LOST, True, 1),
        (asyncpg.SerializationError("another was first"), False, 5),
        (asyncpg.DeadlockDetectedError("another was first"), True, 5),
        (asyncpg.LockNotAvailableError("held"), False, 1),
    ],
    ids=["lost", "away", "serialization", "deadlock", "refused"],
)
def test_a_transaction_in_which_nothing_happened_is_begun_anew_a_few_times(
    open_one: Callable[..., PostgresStore], monkeypatch: pytest.MonkeyPatch, error: Exception, away: bool, times: int
) -> None:
    store = open_one(leading=False)
    fill(store)
    began = list[int]()

    async def work(enough: int, rows: Any) -> int:
        began.append(1)
        await rows.execute("UPDATE run SET reason = reason || 'x'")
        if len(began) < enough:
            raise error
        return len(began)

    for enough, happens in ((times, True), (times + 1, False)):
        began.clear()
        with monkeypatch.context() as patch:
            server = Repeated(patch, away=away)
            if happens:
                assert store.database.transact(functools.partial(work, enough)) == times
            else:
                with pytest.raises(StoreUnavailable, match=f"cannot be used just now: {error}"):
                    store.database.transact(functools.partial(work, enough))
        assert len(began) == times
        assert server.asked == [], "there is nothing to ask about: it was not being committed"
    assert store.phase()[1] == "x", "it happened once"


def test_where_nobody_may_ask_what_became_of_a_commit_the_caller_hears_of_it(
    open_one: Callable[..., PostgresStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_one()
    fill(store)
    accepted = update(store)
    tried = lose_a_commit(monkeypatch, [asyncpg.InsufficientPrivilegeError("permission denied")], happened=True)
    with pytest.raises(StoreError, match="refuses: permission denied"):
        store.updates.accept([accepted])
    assert tried == ["commit", "ask"]


@pytest.mark.parametrize(
    ("seconds", "says", "opens"),
    [(None, None, True), (31.0, 0.0, True), (0.0, None, False)],
    ids=["once", "again and again", "not at all"],
)
def test_a_server_that_does_not_answer_at_first_is_tried_again_for_a_while(
    open_one: Callable[..., PostgresStore],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    naps: list[float],
    seconds: float | None,
    says: float | None,
    opens: bool,
) -> None:
    connect = asyncpg.connect
    refusals = [ConnectionRefusedError("nobody listens")] * 2

    async def late(*arguments: Any, **options: Any) -> Any:
        if refusals:
            raise refusals.pop()
        return await connect(*arguments, **options)

    monkeypatch.setattr(asyncpg, "connect", late)
    if seconds is not None:
        monkeypatch.setattr(database, "START_SECONDS", seconds)
    if says is not None:
        monkeypatch.setattr(database, "SAY_SECONDS", says)
    if opens:
        place = f"the database {open_one().database.address}"
        waits = f"{place} cannot be used just now: nobody listens; trying for {30 if seconds is None else 31} s"
        again = [] if says is None else [f"{waits} (N s so far)"]
        heard = [re.sub(r"\(\d+ s so", "(N s so", record.getMessage()) for record in caplog.records]
        assert heard == [waits, *again, f"{place} is back"]
        assert naps.count(database.RETRY_SECONDS) == 2
        assert refusals == []
    else:
        with pytest.raises(StoreUnavailable, match="cannot be used just now: nobody listens"):
            open_one()
        assert len(refusals) == 1, "the first was the last"
        assert caplog.text == ""


def test_a_store_that_is_warm_has_all_its_connections_and_its_thread_holds_no_process_up(
    open_one: Callable[..., PostgresStore],
) -> None:
    store = open_one(leading=False)
    store.database.run(store.database.warm_up())
    open_ = "SELECT count(*) FROM pg_stat_activity WHERE application_name = $1"
    assert [row[0] for row in store.database.rows(open_, store.database.sessions)] == [6]
    threads = [thread for thread in threading.enumerate() if thread.name == "ftte-postgres"]
    assert threads
    assert all(thread.daemon for thread in threads)


def test_a_leader_that_may_not_renew_its_lease_ends_renewing_and_says_why_at_once(
    open_one: Callable[..., PostgresStore],
    postgres_database: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Trying again would not help: it is no lost connection."""
    monkeypatch.setattr(leading, "LEASE_SECONDS", 0.03)
    store = open_one()
    (renewing,) = [task for task in store.database._tasks if task.get_coro().__name__ == "_renew"]  # type: ignore[union-attr]
    query(postgres_database, f'ALTER TABLE "{store.database.schema}".lease RENAME TO taken_away')

    async def ended() -> None:
        await asyncio.wait_for(asyncio.wait([renewing]), 60)

    store.database.run(ended())
    assert [record.getMessage() for record in caplog.records] == ['relation "lease" does not exist']
    query(postgres_database, f'ALTER TABLE "{store.database.schema}".taken_away RENAME TO lease')
    store.close()
    assert [record.getMessage() for record in caplog.records] == ['relation "lease" does not exist']
    assert [record.levelname for record in caplog.records] == ["ERROR"]


def test_a_store_that_is_closed_says_nothing_of_what_it_ends(
    open_one: Callable[..., PostgresStore], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "coordinator")
    open_one().close()
    assert caplog.text == ""


def test_work_for_a_store_that_was_closed_is_refused_and_ended(open_one: Callable[..., PostgresStore]) -> None:
    store = open_one()
    store.close()
    work = asyncio.sleep(0)
    with pytest.raises(StoreUnavailable, match="closed"):
        store.database.run(work)
    assert inspect.getcoroutinestate(work) == inspect.CORO_CLOSED


@pytest.mark.parametrize("error", [StoreError("odd"), StoreUnavailable("the objects are away")])
def test_bytes_that_cannot_be_erased_after_a_commit_are_erased_later_and_nobody_hears_of_it(
    open_one: Callable[..., PostgresStore], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    store = open_one(grace_seconds=0.0)
    fill(store)
    given = update(store, b"k" * (LARGE_BYTES + 1))
    store.updates.accept([given])

    def fail(keys: object) -> int:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(store.updates._objects, "delete", fail)
        store.updates.discard([DiscardedUpdate(given[0].assignment, "stale")])
    assert store.updates.buffered() == []
    assert len(list(tmp_path.rglob("updates/*"))) == 1
    assert store.updates.collect() == 1
    assert list(tmp_path.rglob("updates/*")) == []
    assert store.updates.collect() == 0


def test_an_object_that_no_row_names_is_kept_for_an_hour_and_deleted_once(
    open_one: Callable[..., PostgresStore], tmp_path: Path
) -> None:
    store = open_one()
    store.updates.keep_objects([("updates/a00000098.left", b"one"), ("updates/a00000099.left", b"another")])
    found = []
    for minutes in (0, 59, 2):
        passed = f"UPDATE objects SET put_at = put_at - make_interval(mins => {minutes})"
        store.database.transact(functools.partial(asyncpg.Connection.execute, query=passed))
        found.append(store.updates.collect())
    assert found == [0, 0, 2]
    assert kept_objects.GRACE_SECONDS == 60 * 60
    assert list(tmp_path.rglob("updates/*")) == []
    assert store.updates._objects.delete(["updates/a00000098.left"]) == 0


def test_updates_that_are_accepted_together_are_counted_each_and_the_last_report_stays(
    open_one: Callable[..., PostgresStore],
) -> None:
    store = open_one()
    fill(store)
    given = [update(store, bytes([number])) for number in range(3)]
    given = [(dataclasses.replace(record, report={"samples": n}), content) for n, (record, content) in enumerate(given)]
    assert store.updates.accept([*given, given[0]]) == {record.assignment for record, _ in given}
    (device,) = store.devices.all()
    assert (device.updates, device.report) == (3, {"samples": 2})
    assert [record.report["samples"] for record in store.updates.buffered()] == [0, 1, 2]


@pytest.mark.parametrize("major", [13, 14])
def test_a_server_that_is_too_old_is_refused(
    open_one: Callable[..., PostgresStore], monkeypatch: pytest.MonkeyPatch, major: int
) -> None:
    version = ServerVersion(major, 5, 0, "final", 0)
    monkeypatch.setattr(asyncpg.Connection, "get_server_version", lambda connection: version)
    if major >= 14:
        open_one()
        return
    with pytest.raises(StoreError, match="is PostgreSQL 13: FTTE needs 14 or newer"):
        open_one()
