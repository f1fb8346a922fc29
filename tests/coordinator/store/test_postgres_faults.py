"""The database's server dies in mid run, a leader is stopped for a while: nothing is lost, nothing happens twice."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import asyncpg
import numpy as np
import pytest

from coordinator.errors import StoreError, StoreUnavailable
from coordinator.store.objects.folder import FolderObjects
from coordinator.store.postgres import Address, PostgresStore
from coordinator.store.postgres.lease import LeaseRow
from coordinator.store.records import AssignmentRequest, MergedUpdate, UpdateRecord, VersionRecord
from mobile_sdk.manifest import FileEntry

from ...postgres_server import PostgresServer, open_server
from .crash_worker import SIZE, begin, content, put, values


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """A server of this module's own, which it stops."""
    with open_server() as server:
        yield server


class Worker(threading.Thread):
    """Accepts and merges as a coordinator does, and tries again what the database did not take."""

    def __init__(self, store: PostgresStore) -> None:
        super().__init__()
        self.ending = threading.Event()
        self.accepted: list[str] = []
        self.merged = threading.Semaphore(0)
        self.waited = 0
        self.errors: list[Exception] = []
        self._store = store

    def run(self) -> None:
        try:
            while not self.ending.is_set():
                self._accept()
                self._merge()
                self.merged.release()
        except Exception as error:
            self.errors.append(error)

    def _accept(self) -> None:
        store = self._store
        requests = [AssignmentRequest(f"phone-{number}", 0, "small", 0.0) for number in range(3)]
        with self._patience():
            group = []
            for work in store.assignments.assign(requests):
                bytes_ = content(work.id)
                group.append((UpdateRecord(work.id, work.device, 0, "small", FileEntry.of(bytes_), {}, 0.0), bytes_))
            new = store.updates.accept(group)
            assert new == {record.assignment for record, _ in group}, "each is new once"
            self.accepted += sorted(new)

    def _merge(self) -> None:
        store = self._store
        with self._patience():
            waiting = store.updates.buffered()
            newest = store.versions.latest()
            weights = np.frombuffer(store.artifacts.verified(newest.weights[0].sha256).read_bytes())
            weights = weights + sum(values(store.updates.content(update.assignment)) for update in waiting)
            number = store.versions.next_number()
            record = VersionRecord(number, newest.version, (put(store, weights.tobytes()),), {}, float(number))
            store.versions.commit(record, [MergedUpdate(update.assignment, 0, 1.0) for update in waiting])

    @contextlib.contextmanager
    def _patience(self) -> Iterator[None]:
        try:
            yield
        except StoreUnavailable:
            self.waited += 1
            self.ending.wait(0.05)


def test_a_server_that_dies_and_comes_back_loses_nothing_and_doubles_nothing(
    server: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("coordinator.store.postgres.leading.LEASE_SECONDS", 0.3)
    store = PostgresStore(Address(server.database()), "digits", tmp_path / "state")
    worker = Worker(store)
    try:
        begin(store)
        worker.start()
        with said("waiting for it") as log:
            for _ in range(2):
                for _ in range(5):
                    assert worker.merged.acquire(timeout=60)
                server.stop()
                assert log.heard.wait(60)
                server.start()
        while worker.merged.acquire(blocking=False):
            pass
        for _ in range(5):
            assert worker.merged.acquire(timeout=60), "it goes on"
        worker.ending.set()
        worker.join(60)
        assert worker.errors == []
        with contextlib.suppress(StoreUnavailable):
            worker._merge()
        merged = [update.assignment for update in store.updates.merged()]
        waiting = [update.assignment for update in store.updates.buffered()]
        assert len(merged) == len(set(merged))
        assert set(worker.accepted) <= {*merged, *waiting}
        newest = store.versions.latest()
        weights = np.frombuffer(store.artifacts.verified(newest.weights[0].sha256).read_bytes())
        expected = sum((values(content(name)) for name in merged), np.zeros(SIZE))
        assert weights.tolist() == expected.tolist(), "every merged update is in the weights once"
        assert store.lease.renew(60.0), "the lead is the same as before"
        assert "Traceback" not in caplog.text
    finally:
        worker.ending.set()
        worker.join(60)
        store.close()


class Said(logging.Handler):
    """Waits for words in the log, and keeps what was said until then."""

    def __init__(self, words: str) -> None:
        super().__init__()
        self._words = words
        self.records: list[logging.LogRecord] = []
        self.heard = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)
        if self._words in record.getMessage():
            self.heard.set()


@contextlib.contextmanager
def said(words: str) -> Iterator[Said]:
    """
    Listen to the coordinator's log.

    Caplog's handler gets a record after this one, so that it may lack the words when who waited for them goes on.
    """
    handler = Said(words)
    logging.getLogger("coordinator").addHandler(handler)
    try:
        yield handler
    finally:
        logging.getLogger("coordinator").removeHandler(handler)


def test_who_serves_waits_for_a_server_that_is_not_there_yet_until_told_to_give_up(
    server: PostgresServer, tmp_path: Path
) -> None:
    address, giving_up = Address(server.database()), threading.Event()

    def open_store() -> None:
        PostgresStore(address, "digits", tmp_path / "state", standby=giving_up).close()

    server.stop()
    with ThreadPoolExecutor() as threads:
        with said("waiting for it") as waits:
            opened = threads.submit(open_store)
            assert waits.heard.wait(60)
        server.start()
        opened.result(60)
        server.stop()
        with said("waiting for it") as waits:
            opened = threads.submit(open_store)
            assert waits.heard.wait(60)
        giving_up.set()
        with pytest.raises(StoreUnavailable, match="cannot be used just now"):
            opened.result(60)
    server.start()


STOPPED = """
import sys
from pathlib import Path
from typing import Any

from coordinator.errors import Superseded
from coordinator.store.postgres import Address, PostgresStore, leading
from tests.coordinator.store.crash_worker import accept, merge

leading.LEASE_SECONDS = 0.5
store = PostgresStore(Address(sys.argv[1]), "digits", Path(sys.argv[2]))

async def stay_in_a_transaction(rows):
    await rows.execute("SET idle_in_transaction_session_timeout = 0")  # the server would wait for ever
    await rows.execute("UPDATE run SET reason = 'by the one that was stopped'")
    print("in a transaction", flush=True)
    await store.database.in_thread(sys.stdin.readline)

try:
    store.database.transact(stay_in_a_transaction)
    print("written", flush=True)
except Superseded as error:
    print(error, flush=True)
try:
    while True:
        accept(store)
        merge(store)
except Superseded as error:
    print(error, flush=True)
store.close()
"""


def test_a_leader_that_is_stopped_in_a_transaction_and_wakes_has_written_nothing(
    server: PostgresServer, tmp_path: Path
) -> None:
    address = server.database()
    with contextlib.closing(PostgresStore(Address(address), "digits", tmp_path / "one")) as store:
        begin(store)
    command = [sys.executable, "-c", STOPPED, address, str(tmp_path / "two")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as stopped:
        assert stopped.stdin is not None
        assert stopped.stdout is not None
        assert stopped.stdout.readline() == "in a transaction\n"
        os.kill(stopped.pid, signal.SIGSTOP)
        try:
            # It waits for the lease to run out, and not for the transaction.
            with contextlib.closing(PostgresStore(Address(address), "digits", tmp_path / "one")) as successor:
                holder = successor.lease.current()
                assert holder is not None
                assert holder.epoch == 3
                successor.set_phase("paused", "by the successor", 1.0, by="anna")
                before = successor.versions.all(), successor.assignments.open(), successor.updates.buffered()
                os.kill(stopped.pid, signal.SIGCONT)
                said, _ = stopped.communicate("\n", timeout=60)
                assert successor.phase() == ("paused", "by the successor")
                assert before == (
                    successor.versions.all(),
                    successor.assignments.open(),
                    successor.updates.buffered(),
                )
        finally:
            stopped.kill()
    assert said.splitlines() == ["another process leads the run by now: this one writes nothing any more; stop it"] * 2


LEADER = """
import sys
from pathlib import Path
from typing import Any

from coordinator.store.postgres import Address, PostgresStore

store = PostgresStore(Address(sys.argv[1]), "digits", Path(sys.argv[2]))
print("leads", flush=True)
sys.stdin.readline()
"""


@contextlib.contextmanager
def leader(address: str, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that leads the run; it does nothing else."""
    command = [sys.executable, "-c", LEADER, address, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "leads\n"
        try:
            yield process
        finally:
            process.kill()


def guards(address: str) -> tuple[int, int]:
    """How many connections hold the lock of a run's leader, and how many wait for it."""

    async def ask() -> tuple[int, int]:
        connection = await asyncpg.connect(address)
        try:
            row = await connection.fetchrow(
                "SELECT count(*) FILTER (WHERE granted), count(*) FILTER (WHERE NOT granted) FROM pg_locks "
                "WHERE locktype = 'advisory' AND objid = 2 AND objsubid = 2 "
                "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
            )
            return int(row[0]), int(row[1])
        finally:
            await connection.close()

    return asyncio.run(ask())


def sessions(address: str) -> list[int]:
    """How many connections each store has."""

    async def ask() -> list[int]:
        connection = await asyncpg.connect(address)
        try:
            rows = await connection.fetch(
                "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'ftte %' "
                "AND datname = current_database() GROUP BY application_name"
            )
            return [int(row[0]) for row in rows]
        finally:
            await connection.close()

    return asyncio.run(ask())


def wait_until(reached: Callable[[], bool]) -> None:
    """Of another process, which says nothing: look until it is so."""
    deadline = time.monotonic() + 60
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_the_death_of_a_leader_wakes_who_stands_by(
    server: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not wait for its next look, which is hours away here, nor for the end of the lease."""
    address, giving_up = server.database(), threading.Event()
    monkeypatch.setattr("coordinator.store.postgres.leading.POLL_SECONDS", 0.02)
    with leader(address, tmp_path / "one") as killed, ThreadPoolExecutor() as threads:
        wait_until(lambda: guards(address) == (1, 0))
        opened = threads.submit(PostgresStore, Address(address), "digits", tmp_path / "two", standby=giving_up)
        try:
            wait_until(lambda: guards(address) == (1, 1))
            # What it needs at once when it leads, and the one that waits for the lock.
            wait_until(lambda: 7 in sessions(address))
            monkeypatch.setattr("coordinator.store.postgres.leading.POLL_SECONDS", 36_000.0)
            killed.kill()
            with contextlib.closing(opened.result(60)) as successor:
                holder = successor.lease.current()
                assert holder is not None
                assert holder.epoch == 2
                wait_until(lambda: guards(address) == (1, 0))
                waits = successor.database._tasks[:2]
                assert [task.get_coro().__name__ for task in waits] == ["_watch_guard", "_stay_warm"]  # type: ignore[union-attr]
                wait_until(lambda: all(task.done() for task in waits))
            wait_until(lambda: guards(address) == (0, 0))
        finally:
            giving_up.set()


def test_a_leader_whose_connections_end_goes_on_leading_and_guards_its_lead_again(
    server: PostgresServer, tmp_path: Path
) -> None:
    address = server.database()
    with contextlib.closing(PostgresStore(Address(address), "digits", tmp_path / "one")) as store:
        wait_until(lambda: guards(address) == (1, 0))
        other = PostgresStore(Address(address), "digits", tmp_path / "two", leading=False)
        with contextlib.closing(other):
            ended = other.database.rows(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = $1",
                store.database.sessions,
            )
            assert len(ended) >= 2
        wait_until(lambda: guards(address) == (1, 0))
        assert store.lease.renew(60.0)
        assert not store.lease.lost


def test_a_leader_waits_for_a_server_that_cannot_write_just_now_and_renews_its_lease_again(
    server: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its connections end, and new ones may only read; whoever gave up renewing would lose the lead for nothing."""
    monkeypatch.setattr("coordinator.store.postgres.leading.LEASE_SECONDS", 0.06)
    monkeypatch.setattr("coordinator.store.postgres.leading.POLL_SECONDS", 0.01)
    caplog.set_level(logging.INFO, "coordinator")
    renew, refused = LeaseRow.renew_async, threading.Semaphore(0)

    async def watched(lease: LeaseRow, seconds: float) -> bool:
        try:
            return await renew(lease, seconds)
        except asyncpg.exceptions.ReadOnlySQLTransactionError:
            refused.release()
            raise

    async def set_read_only(switch: str) -> None:
        connection = await asyncpg.connect(address, server_settings={"default_transaction_read_only": "off"})
        try:
            (name,) = await connection.fetchrow("SELECT current_database()")
            await connection.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = {switch}")
            await connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        finally:
            await connection.close()

    monkeypatch.setattr(LeaseRow, "renew_async", watched)
    address = server.database()
    with (
        contextlib.closing(PostgresStore(Address(address), "digits", tmp_path / "state")) as store,
        said("is back") as log,
    ):
        asyncio.run(set_read_only("on"))
        for _ in range(3):
            assert refused.acquire(timeout=60)
        asyncio.run(set_read_only("off"))
        assert log.heard.wait(60)
        assert store.lease.renew(60.0)
        assert not store.lease.lost
    waits, back, *_ = [record.getMessage() for record in log.records if record.name.endswith(".leading")]
    assert waits.endswith("; waiting for it")
    assert back == f"the database {Address(address)} is back"


def test_a_leader_whose_server_went_says_that_its_lease_runs_out_and_leads_no_run_on_a_standby(
    server: PostgresServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    address, signal_file = Address(server.database()), server.folder / "data" / "standby.signal"
    store = PostgresStore(address, "digits", tmp_path / "state")
    server.stop()
    store.close()
    assert "the lease runs out by itself in 2.5 s: " in caplog.text
    signal_file.touch()
    try:
        server.start()
        with pytest.raises(StoreError, match="is a standby, which cannot be written: give the primary's address"):
            PostgresStore(address, "digits", tmp_path / "state")
        server.stop()
    finally:
        signal_file.unlink()
        server.start()


def test_a_server_that_does_not_wait_for_its_disk_is_refused(server: PostgresServer, tmp_path: Path) -> None:
    address = server.database()

    async def set_fsync(switch: str) -> None:
        connection = await asyncpg.connect(address)
        await connection.execute(f"ALTER SYSTEM SET fsync = {switch}")
        await connection.execute("SELECT pg_reload_conf()")
        while await connection.fetchval("SHOW fsync") != switch:
            pass  # at its next statement, once the server's first process has told it
        await connection.close()

    asyncio.run(set_fsync("off"))
    try:
        with pytest.raises(
            StoreError, match=r"fsync = off: a power cut would lose .*; set fsync = on in postgresql\.conf"
        ):
            PostgresStore(Address(address), "digits", tmp_path / "state")
    finally:
        asyncio.run(set_fsync("on"))


def test_connections_that_do_not_end_by_themselves_are_ended_with_the_store(
    server: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(pool: asyncpg.Pool) -> None:
        await asyncio.sleep(3_600)

    monkeypatch.setattr(asyncpg.pool.Pool, "close", never)
    monkeypatch.setattr("coordinator.store.postgres.database.CLOSE_SECONDS", 0.01)
    address = server.database()
    store = PostgresStore(Address(address), "digits", tmp_path / "state", leading=False)
    store.close()
    wait_until(lambda: sessions(address) == [])


def test_whoever_asks_while_the_store_is_closed_is_told_so_and_waits_for_no_answer(
    server: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coordinator.store.postgres.database.CLOSE_SECONDS", 0.01)
    store = PostgresStore(Address(server.database()), "digits", tmp_path / "state")
    asked = threading.Event()

    async def ask() -> None:
        asked.set()
        await asyncio.sleep(3_600)

    with ThreadPoolExecutor() as threads:
        waits: list[Future[Any]] = [
            threads.submit(store.database.run, ask()),
            threads.submit(store.database.rows, "SELECT pg_sleep(3600)"),
        ]
        assert asked.wait(60)
        store.close()
        for each in waits:
            with pytest.raises(StoreUnavailable, match="closed"):
                each.result(60)


def test_a_store_keeps_its_folder_until_it_has_removed_what_nobody_needs(
    server: PostgresServer, tmp_path: Path
) -> None:
    """Else it could take a file of the folder's next process, whose version it does not know, for one of those."""
    address = Address(server.database())
    began, goes_on = threading.Event(), threading.Event()

    class Slow(FolderObjects):
        def delete(self, key: str) -> None:
            began.set()
            goes_on.wait(60)
            super().delete(key)

    store = PostgresStore(address, "digits", tmp_path / "one", Slow(tmp_path / "objects"), grace_seconds=0.0)
    begin(store)
    store.artifacts.put(b"what no row names")
    store.artifacts.named([hashlib.sha256(b"what no row names").hexdigest()])
    with ThreadPoolExecutor() as threads:
        collecting = threads.submit(store.collect)
        assert began.wait(60)
        closing = threads.submit(store.close)
        with pytest.raises(StoreError, match="another coordinator uses the state directory"):
            PostgresStore(address, "digits", tmp_path / "one", leading=True)
        goes_on.set()
        closing.result(60)
        with contextlib.suppress(StoreUnavailable):
            collecting.result(60)
    PostgresStore(address, "digits", tmp_path / "one").close()
