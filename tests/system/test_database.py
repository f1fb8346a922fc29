"""A real coordinator and real devices, with the run in PostgreSQL: coordinator and server die, and nothing is lost."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from coordinator.store.postgres import Address, PostgresStore
from coordinator.store.sqlite import SqliteStore

from ..postgres_server import PASSWORD, PostgresServer, open_server
from .conftest import BIN, PATIENCE, Operator, Process, Site

SETTINGS = '[merge]\nbuffer = 2\n[store]\npostgres = "$FTTE_TEST_DATABASE"\n[stop]\nversions = 8\n'


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    """A server of the test's own, which it stops."""
    with open_server() as server:
        yield server


def wait_for_version(store: PostgresStore, number: int) -> None:
    """Until the run has a version of this number."""
    deadline = time.monotonic() + PATIENCE
    while store.versions.latest().version < number:
        assert time.monotonic() < deadline
        time.sleep(0.05)  # another process's rows: there is nothing to await


@pytest.mark.full
def test_a_run_in_a_database_outlives_its_coordinator_and_its_server(
    site: Site, server: PostgresServer, operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = server.database()
    monkeypatch.setenv("FTTE_TEST_DATABASE", address)
    run_file = site.folder / "run.toml"
    run_file.write_text(
        '[run]\nname = "digits"\ntask = "exporters.zoo.digits:task"\n[budgets]\nsmall = "1MB"\nlarge = "5MB"\n'
        + SETTINGS
    )
    operator("migrate", str(run_file))
    with contextlib.closing(PostgresStore(Address(address), "digits", site.folder / "look", leading=False)) as look:
        coordinator = site.serve(SETTINGS)
        devices = [site.device(f"phone-{number}", number) for number in range(2)]
        wait_for_version(look, 2)
        server.stop()
        coordinator.wait_for("waiting for it")
        server.start()
        coordinator.wait_for("is back")
        wait_for_version(look, 5)
        coordinator.kill()
        known = {update.assignment for update in look.updates.buffered()}
        known |= {update.assignment for update in look.updates.merged()}
        coordinator = site.serve(SETTINGS)
        assert coordinator.wait() == 0
        for device in devices:
            device.stop()
        merged = [update.assignment for update in look.updates.merged()]
        assert len(merged) == len(set(merged)) == 16
        assert known <= {*merged, *(update.assignment for update in look.updates.buffered())}
        versions = look.versions.all()
        assert [version.version for version in versions] == list(range(9))
        assert look.phase()[0] == "finished"
        assert look.lease.current() is None, "whoever ends gives the lease back"
    logs = "".join(path.read_text() for path in site.folder.glob("*.log"))
    assert PASSWORD not in logs
    assert "a%20secret" not in logs
    assert "Traceback" not in logs
    operator("migrate", str(run_file), "--back", str(site.folder / "back"))
    with contextlib.closing(SqliteStore(site.folder / "back")) as back:
        assert back.versions.all() == versions


@pytest.mark.full
def test_gateways_serve_a_run_whose_state_is_in_a_database(
    site: Site, server: PostgresServer, operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = server.database()
    monkeypatch.setenv("FTTE_TEST_DATABASE", address)
    run_file = site.folder / "run.toml"
    run_file.write_text(
        '[run]\nname = "digits"\ntask = "exporters.zoo.digits:task"\n'
        f'[budgets]\nsmall = "1MB"\nlarge = "5MB"\n{SETTINGS}'
    )
    operator("migrate", str(run_file))
    coordinator = site.serve(SETTINGS, options=["--gateways", "2"])
    devices = [site.device(f"phone-{number}", number) for number in range(2)]
    assert coordinator.wait() == 0
    for device in devices:
        device.stop()
    with contextlib.closing(PostgresStore(Address(address), "digits", site.folder / "look", leading=False)) as look:
        assert [version.version for version in look.versions.all()] == list(range(9))
        merged = [update.assignment for update in look.updates.merged()]
        assert len(merged) == len(set(merged)) == 16
        assert look.phase()[0] == "finished"


def test_a_coordinator_that_waits_for_a_database_says_so_and_tells_no_password(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_file = site.folder / "run.toml"
    run_file.write_text(
        '[run]\nname = "digits"\ntask = "exporters.zoo.digits:task"\n[budgets]\nsmall = "1MB"\n'
        f'[store]\npostgres = "postgresql://ftte:hidden@/ftte?host={tmp_path}"\n'
    )
    process = site.keep(Process(BIN / "ftte", "serve", run_file, log=site.folder / "serve.log"))
    process.wait_for(r"cannot be used just now: .*; waiting for it")
    process.signal()
    process.wait()
    assert "hidden" not in process.output
    assert "Traceback" not in process.output
