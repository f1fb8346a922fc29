"""The database's server dies in mid run, a leader is stopped for a while: nothing is lost, nothing happens twice."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from coordinator.errors import StoreUnavailable
from coordinator.store.postgres import Address, PostgresStore
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
    server: PostgresServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = PostgresStore(Address(server.database()), "digits", tmp_path / "state")
    worker = Worker(store)
    try:
        begin(store)
        worker.start()
        for _ in range(2):
            for _ in range(5):
                assert worker.merged.acquire(timeout=60)
            server.stop()
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
        assert "waiting for it" in caplog.text
        assert "Traceback" not in caplog.text
    finally:
        worker.ending.set()
        worker.join(60)
        store.close()


class Said(logging.Handler):
    """Waits for words in the log."""

    def __init__(self, words: str) -> None:
        super().__init__()
        self._words = words
        self.heard = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        if self._words in record.getMessage():
            self.heard.set()


@contextlib.contextmanager
def said(words: str) -> Iterator[threading.Event]:
    """Set once the log says so."""
    handler = Said(words)
    logging.getLogger("coordinator").addHandler(handler)
    try:
        yield handler.heard
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
            assert waits.wait(60)
        server.start()
        opened.result(60)
        server.stop()
        with said("waiting for it") as waits:
            opened = threads.submit(open_store)
            assert waits.wait(60)
        giving_up.set()
        with pytest.raises(StoreUnavailable, match="cannot be used just now"):
            opened.result(60)
    server.start()


STOPPED = """
import sys
from pathlib import Path

from coordinator.errors import Superseded
from coordinator.store.postgres import Address, PostgresStore
from tests.coordinator.store.crash_worker import accept, merge

store = PostgresStore(Address(sys.argv[1]), "digits", Path(sys.argv[2]))

async def stay_in_a_transaction(rows):
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
