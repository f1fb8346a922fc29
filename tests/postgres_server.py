"""A PostgreSQL server of its own for tests, in a temporary folder: Debian's, made by ``initdb``, without privileges."""

from __future__ import annotations

import contextlib
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

__all__ = ["PASSWORD", "PostgresServer", "open_server"]

# It is to be found in no log and no message.
PASSWORD = "a secret of 8 words & signs"

_SETTINGS = """
listen_addresses = ''
max_connections = 60
shared_buffers = 32MB
max_wal_size = 256MB
log_min_messages = fatal
"""


class PostgresServer:
    """
    A server that listens on a Unix socket in ``folder``.

    ``stop`` takes it away as a power cut would, without a checkpoint; ``start`` brings it back.
    """

    def __init__(self, folder: Path, binaries: Path, settings: str = _SETTINGS) -> None:
        self.folder = folder
        self._binaries = binaries
        self._data = folder / "data"
        self._process: subprocess.Popen[bytes] | None = None
        self._numbers = itertools.count(1)
        # Root may not run a server; a user of its own may.
        self._user: dict[str, Any] = {}
        if os.getuid() == 0:
            account = pwd.getpwnam("postgres")
            os.chown(folder, account.pw_uid, account.pw_gid)
            self._user = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
        secret = folder / "password"
        secret.write_text(PASSWORD)
        secret.chmod(0o644)
        self._run("initdb", "-D", self._data, "-U", "ftte", f"--pwfile={secret}", *_INITDB)
        self._run_shell(f"cat >> {self._data}/postgresql.conf", f"{settings}unix_socket_directories = '{folder}'\n")

    def start(self) -> None:
        """Start it, and wait until it answers."""
        command = [str(self._binaries / "postgres"), "-D", str(self._data)]
        if shutil.which("setpriv"):  # it ends with the tests, even if they are killed
            command = ["setpriv", "--pdeathsig", "INT", *command]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder, **self._user)
        self._run("pg_isready", "-h", self.folder, "-t", "60", until_done=True)

    def stop(self) -> None:
        """Stop it at once: it recovers from its log at the next start."""
        self._run("pg_ctl", "stop", "-D", self._data, "-m", "immediate", "-t", "60")
        assert self._process is not None
        self._process.wait(60)

    def close(self) -> None:
        """Stop it for good."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(60)

    @property
    def processes(self) -> list[int]:
        """The server's processes, the first of which has started the others."""
        assert self._process is not None
        first = self._process.pid
        return [first, *map(int, Path(f"/proc/{first}/task/{first}/children").read_text().split())]

    def database(self) -> str:
        """The address of a new, empty database, with the password in it."""
        name = f"test_{next(self._numbers)}"
        self._sql(f"CREATE DATABASE {name}")
        return self.address(name)

    def address(self, database: str = "postgres") -> str:
        """The address of a database, with the password in it."""
        return f"postgresql://ftte:{quote(PASSWORD)}@/{database}?host={self.folder}"

    def _sql(self, statement: str) -> None:
        self._run("psql", "-X", "-q", "-h", self.folder, "-U", "ftte", "-d", "postgres", "-c", statement)

    def _run(self, name: str, *arguments: object, until_done: bool = False) -> None:
        environment = {**os.environ, "PGPASSWORD": PASSWORD, "LC_ALL": "C.UTF-8"}
        command = [str(self._binaries / name), *map(str, arguments)]
        while True:
            done = subprocess.run(
                command, capture_output=True, text=True, env=environment, cwd=self.folder, check=False, **self._user
            )
            if done.returncode == 0:
                return
            alive = self._process is not None and self._process.poll() is None
            if not (until_done and alive):
                raise AssertionError(f"{name} failed: {done.stdout}{done.stderr}{self._log()}")

    def _run_shell(self, command: str, text: str) -> None:
        subprocess.run(command, shell=True, input=text.encode(), cwd=self.folder, check=True, **self._user)

    def _log(self) -> str:
        log = self.folder / "log"
        return log.read_text()[-2_000:] if log.exists() else ""


_INITDB = ("--auth=scram-sha-256", "--no-sync", "--encoding=UTF8", "--locale=C.UTF-8")


def _place() -> str:
    """
    A folder in memory, where there is room for servers, or else on a disk.

    No test cuts the power: what a server has written stays when it is killed. On a disk each start after that would
    take seconds, since the server syncs every file that it has.
    """
    memory = Path("/dev/shm")
    return str(memory) if memory.is_dir() and shutil.disk_usage(memory).free > 2 * 2**30 else "/tmp"


@contextlib.contextmanager
def open_server(settings: str = "") -> Iterator[PostgresServer]:
    """A running server with ``settings`` more; the test is skipped where PostgreSQL is not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parent.parent.name))
    on_path = shutil.which("initdb")
    if not found and on_path is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    binaries = found[-1].parent if found else Path(str(on_path)).parent
    folder = Path(tempfile.mkdtemp(prefix="ftte-postgres-", dir=_place()))
    server = PostgresServer(folder, binaries, _SETTINGS + settings)
    try:
        server.start()
        yield server
    finally:
        server.close()
        shutil.rmtree(folder, ignore_errors=True)
