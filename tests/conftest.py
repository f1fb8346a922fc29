"""What holds for all tests."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator

import pytest
from hypothesis import settings

from .postgres_server import PostgresServer, open_server
from .s3_server import S3Server, open_s3_server

# The same examples in every run: what fails once fails again. A loaded machine is no fault: no example has a deadline.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")

# Tests import parts of the app. Unless told otherwise, Kivy takes over the process's log and its standard error then,
# for all tests that come after. The app itself tells it the same.
os.environ.setdefault("KIVY_LOG_MODE", "MIXED")
os.environ.setdefault("KIVY_NO_ARGS", "1")

# Tests of what only Linux has: /proc, libraries that are preloaded, limits on a process's memory.
LINUX_ONLY = (
    "coordinator/evaluation/test_central_process.py",
    "coordinator/store/test_sync_order.py",
    "exporters/test_processes.py",
    "mobile_sdk/engines/test_small_memory.py",
    "mobile_sdk/test_wheel.py",
    "repository/test_install_torch.py",
    "system/test_durability.py",
    "system/test_real_life.py",
    "system/test_stopping.py",
)
collect_ignore = [] if sys.platform == "linux" else list(LINUX_ONLY)


def _logging() -> list[str]:
    """How the process logs: tests that read the log rely on it."""
    loggers = [logging.getLogger(name) for name in (None, "coordinator", "mobile_sdk", "exporters")]
    own = [
        (logger, [h for h in logger.handlers if not type(h).__module__.startswith("_pytest.")]) for logger in loggers
    ]
    return [f"{logger}: {handlers}, {logger.filters}, {logger.propagate=}" for logger, handlers in own]


@pytest.fixture(scope="session")
def logging_at_first() -> list[str]:
    """How the process logs before the first test; ExecuTorch adds a handler where it is imported earlier."""
    return _logging()


@pytest.fixture(autouse=True)
def _logging_stays(logging_at_first: list[str]) -> Iterator[None]:
    """No test, and nothing that it imports, leaves the process's log other than it was."""
    yield
    assert _logging() == logging_at_first


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A PostgreSQL server, for all tests that are not about its end."""
    with open_server() as server:
        yield server


@pytest.fixture(scope="session")
def postgres_database(postgres_server: PostgresServer) -> str:
    """The address of a database that tests share: each run has a schema of its own."""
    return postgres_server.database()


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """An S3 server for all tests."""
    with open_s3_server() as server:
        yield server


@pytest.fixture
def s3_bucket(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of a new bucket; the environment says how to reach it."""
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    return s3_server.bucket()
