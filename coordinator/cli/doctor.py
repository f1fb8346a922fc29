"""``ftte doctor``: what would go wrong, before it does."""

from __future__ import annotations

import datetime
import os
import shutil
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from cryptography import x509
from rich.console import Console
from rich.text import Text

from mobile_sdk.errors import FtteError
from mobile_sdk.net.connection import is_loopback
from mobile_sdk.sizes import format_bytes
from mobile_sdk.system.open_files import open_file_limits

from ..config import Config, load_config, run_files
from ..errors import StoreError
from ..store.sqlite import SqliteStore

__all__ = ["examine"]

ROOM_BYTES = 1_000_000_000
DAYS_LEFT = 30
# Files that the process opens beside one per connection.
OTHER_FILES = 200

# "ok", "warning" or "error", and a sentence.
Finding = tuple[str, str]


def examine(files: Sequence[Path], console: Console) -> int:
    """
    Check run files, their state directories and this machine; say what was found.

    Returns:
        The exit code: 1 if something would not work, else 0.

    """
    styles = {"ok": "green", "warning": "yellow", "error": "red"}
    worst = 0
    for file in run_files(files):
        for level, sentence in _findings(file):
            console.print(Text.assemble((f"{level:8}", styles[level]), sentence), soft_wrap=True)
            worst = max(worst, int(level == "error"))
    return worst


def _findings(file: Path) -> Iterator[Finding]:
    try:
        config = load_config(file)
    except FtteError as error:
        yield "error", str(error)
        return
    yield "ok", f"{file} is a run file of the run {config.run.name}"
    checks: list[Callable[[Config], Iterator[Finding]]] = [_task, _state, _disk, _server, _certificate, _open_files]
    for check in checks:
        yield from check(config)


def _task(config: Config) -> Iterator[Finding]:
    from exporters.task import load_task

    try:
        task = load_task(config.run.task)
    except FtteError as error:
        yield "error", f"run.task: {error}"
        return
    yield "ok", f"the task {config.run.task} has {task.layout.size} parameters"
    watched = {"loss", *task.metrics}
    if task.held_out is None:
        yield "warning", "the task has no held-out data: versions get no metrics, and no guard watches over merges"
    elif config.evaluation.metric not in watched:
        yield "error", f"evaluation.metric {config.evaluation.metric!r} is none of {', '.join(sorted(watched))}"


def _state(config: Config) -> Iterator[Finding]:
    folder = config.run.state
    if not folder.exists():
        yield "ok", f"the state directory {folder} is to be made"
        return
    for name in ("run.key", "state.sqlite"):
        file = folder / name
        if file.exists() and stat.S_IMODE(folder.stat().st_mode) & 0o077 and stat.S_IMODE(file.stat().st_mode) & 0o077:
            yield "error", f"{file} can be read by others: chmod 700 {folder}"
    try:
        store = SqliteStore(folder)
    except StoreError as error:
        yield ("ok" if "another coordinator" in str(error) else "error"), str(error)
        return
    try:
        if store.run() is None:
            yield "ok", f"the state directory {folder} is empty"
            return
        newest = store.versions.latest()
        for ref in newest.weights:
            store.artifacts.verified(ref.sha256)
        lines = len(store.audit.entries())
        phase, reason = store.phase()
        yield "ok", f"the run is {phase} ({reason or 'new'}) at version {newest.version}, whose weights are sound"
        yield "ok", f"the audit log's {lines} lines fit together"
        enrolled, waiting = len(store.devices.all()), len(store.updates.buffered())
        yield "ok", f"{enrolled} devices are enrolled, {waiting} updates wait to be merged"
    except StoreError as error:
        yield "error", str(error)
    finally:
        store.close()


def _disk(config: Config) -> Iterator[Finding]:
    folder = config.run.state
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    yield ("ok" if free >= ROOM_BYTES else "warning"), f"{format_bytes(free)} are free at {folder}"
    if not os.access(folder, os.W_OK):
        yield "error", f"{folder} cannot be written"


def _server(config: Config) -> Iterator[Finding]:
    server = config.server
    if server.certificate is None and not is_loopback(server.host):
        yield "warning", f"host {server.host} is served without TLS: anyone on the way can read updates"
    if is_loopback(server.host):
        yield "ok", f"devices of this machine alone can connect, at {server.host}:{server.port}"
    elif server.token:
        yield (
            "warning",
            "server.token lets whoever knows it enrol any number of devices: `ftte invite` makes better ones",
        )


def _certificate(config: Config) -> Iterator[Finding]:
    path = config.server.certificate
    if path is None:
        return
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError) as error:
        yield "error", f"server.certificate: {path} holds no certificate: {error}"
        return
    left = (certificate.not_valid_after_utc - datetime.datetime.now(datetime.UTC)).days
    words = f"the certificate {path} is good for {left} more days"
    yield ("ok" if left >= DAYS_LEFT else "warning" if left >= 0 else "error"), words
    key = config.server.private_key
    if key is not None and key.exists() and stat.S_IMODE(key.stat().st_mode) & 0o077:
        yield "error", f"{key} can be read by others: chmod 600 {key}"


def _open_files(config: Config) -> Iterator[Finding]:
    soft, hard = open_file_limits()
    wanted = config.server.connections + OTHER_FILES
    if soft < wanted:
        yield (
            "warning",
            f"{soft} files may be open (at most {hard}), {config.server.connections} connections need {wanted}: "
            f"`ulimit -n {wanted}`, or LimitNOFILE of the systemd unit",
        )
    else:
        yield "ok", f"{soft} files may be open"
