"""
A power cut takes nothing that was acknowledged.

Killing a process proves nothing about that: its writes stay in the kernel. So the order of
system calls is recorded: every file and folder must have been synced before the device is told.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from .conftest import Site

UPDATES = 6


@pytest.fixture(scope="module")
def recorder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recording library, compiled."""
    library = tmp_path_factory.mktemp("recorder") / "sync_recorder.so"
    source = Path(__file__).with_name("sync_recorder.c")
    subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return library


def test_files_folder_and_database_are_synced_before_an_update_is_acknowledged(site: Site, recorder: Path) -> None:
    log = site.folder / "calls.log"
    environment = {"LD_PRELOAD": str(recorder), "SYNC_LOG": str(log)}
    server = site.serve(f"[merge]\nbuffer = 2\n[stop]\nversions = {UPDATES // 2}\n", environment)
    device = site.device("phone-1", 0)
    assert server.wait() == 0
    assert device.wait() == 0

    updates = site.state / "updates"
    segments = dict(site.query("SELECT assignment, segment FROM updates"))
    calls = log.read_text(errors="replace").splitlines()
    acknowledged = 0
    for index, call in enumerate(calls):
        if not call.startswith('say {"type":"accepted"'):
            continue
        message = json.loads(call.removeprefix("say ")[: call.index("}") - 3])
        segment = f"sync {updates}/{segments[message['assignment']]:08d}.updates"
        folder = calls.index(f"sync {updates}")
        # The last syncs before the device is told; each update of this one device comes after the last was settled.
        database = index - calls[:index][::-1].index(f"sync {site.state / 'state.sqlite-wal'}") - 1
        bytes_ = index - calls[:index][::-1].index(segment) - 1
        previous = max((i for i, c in enumerate(calls[:index]) if c.startswith('say {"type":"accepted"')), default=0)
        assert previous < bytes_ < database < index, "the update, the database, and only then the device"
        assert folder < index, "the segment has its name"
        acknowledged += 1
    assert acknowledged >= UPDATES


def test_a_version_is_synced_before_it_is_announced(site: Site, recorder: Path) -> None:
    log = site.folder / "calls.log"
    environment = {"LD_PRELOAD": str(recorder), "SYNC_LOG": str(log)}
    server = site.serve("[merge]\nbuffer = 1\n[stop]\nversions = 3\n", environment)
    device = site.device("phone-1", 0)
    assert server.wait() == 0
    assert device.wait() == 0

    artifacts = str(site.state / "artifacts")
    calls = log.read_text(errors="replace").splitlines()
    for version, refs in site.query("SELECT version, weights FROM versions WHERE version > 0"):
        announced = next(
            i for i, call in enumerate(calls) if call.startswith(f'say {{"type":"announce","version":{version},')
        )
        file = f"{artifacts}/{json.loads(refs)[-1]['sha256']}"
        renamed = calls.index(f"rename {file}")
        folder = calls.index(f"sync {artifacts}", renamed)
        database = calls.index(f"sync {site.state / 'state.sqlite-wal'}", folder)
        assert renamed < folder < database < announced


def test_on_a_full_disk_nothing_is_acknowledged_and_nothing_is_lost(site: Site, recorder: Path) -> None:
    flag = site.folder / "full"
    environment = {"LD_PRELOAD": str(recorder), "SYNC_LOG": str(site.folder / "calls.log"), "DISK_FULL": str(flag)}
    server = site.serve("[merge]\nbuffer = 1\n[stop]\nversions = 3\n", environment)
    device = site.device("phone-1", 0, "--step-time", "0.01")
    device.wait_for("step 1 of")
    flag.touch()
    server.wait_for("cannot be used just now")
    device.wait_for("cannot write to its disk; trying again|try again later; trying again")
    assert "accepted" not in device.output
    assert site.query("SELECT count(*) FROM updates") == [(0,)]
    flag.unlink()
    assert server.wait() == 0
    assert device.wait() == 0
    first = site.query("SELECT assignment FROM updates WHERE merged_into = 1")[0][0]
    assert f"{first}: train from version 0" in device.output, "the work done before was not done again"
