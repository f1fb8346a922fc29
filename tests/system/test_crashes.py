"""Nothing acknowledged is lost: processes are killed, and the run goes on."""

from __future__ import annotations

import re
import time

import pytest

from .conftest import Site

SETTINGS = """
[training]
epochs = 2
[merge]
buffer = 2
[stop]
versions = {versions}
"""


def test_a_coordinator_killed_in_mid_run_goes_on_with_every_acknowledged_update_merged_once(site: Site) -> None:
    server = site.serve(SETTINGS.format(versions=1000))
    devices = [site.device(f"phone-{i}", i, "--step-time", "0.002") for i in range(3)]
    for version, limit in ((3, 1000), (7, 14)):
        server.wait_for(rf"version {version}:")
        server.kill()
        before = dict(site.query("SELECT assignment, merged_into FROM updates"))
        server = site.serve(SETTINGS.format(versions=limit))
        after = dict(site.query("SELECT assignment, merged_into FROM updates"))
        # Not even one moved to another version.
        assert all(after[name] == merged for name, merged in before.items() if merged is not None)
    assert server.wait() == 0
    for device in devices:
        device.stop()

    acknowledged = {
        name for device in devices for name in re.findall(r"^(a\d+): accepted", device.output, re.MULTILINE)
    }
    updates = site.query("SELECT assignment, merged_into FROM updates ORDER BY arrival")
    names = [name for name, _ in updates]
    assert len(names) == len(set(names))
    assert acknowledged <= set(names)
    merged = [version for _, version in updates if version is not None]
    assert merged == sorted(merged), "updates are merged in the order they came"
    assert [merged.count(version) for version in range(1, 15)] == [2] * 14
    assert [row[0] for row in site.query("SELECT version FROM versions ORDER BY version")] == list(range(15))
    # What was acknowledged and not merged is still there, at the end of the queue.
    assert all(version is None for _, version in updates[28:])


def test_a_device_killed_in_mid_training_comes_back_and_goes_on(site: Site) -> None:
    server = site.serve(SETTINGS.format(versions=1).replace("buffer = 2", "buffer = 1"))
    device = site.device("phone-1", 0, "--step-time", "0.2")
    first = device.wait_for(r"^(a\d+): train from version 0")[1]
    device.wait_for(r"step \d+ of")
    device.kill()
    again = site.device("phone-1", 0)
    assert again.wait_for(r"^(a\d+): train from version 0")[1] == first
    assert again.wait() == 0
    assert server.wait() == 0
    assert f"{first}: accepted" in again.output
    assert site.query("SELECT assignment FROM updates ORDER BY arrival")[0] == (first,)
    # The program had been downloaded before; only small messages and the update moved again.
    assert site.query("SELECT id FROM devices") == [("phone-1",)]


@pytest.mark.full
def test_a_device_killed_after_a_minute_of_training_goes_on_from_what_it_kept(site: Site) -> None:
    """Once a minute a training is written down; a kill costs what came after."""
    settings = SETTINGS.format(versions=1).replace("buffer = 2", "buffer = 1").replace("epochs = 2", "epochs = 100")
    server = site.serve(settings)
    device = site.device("phone-1", 0, "--step-time", "0.1")
    first = device.wait_for(r"^(a\d+): train from version 0")[1]
    kept = site.folder / "phone-1" / "training.safetensors"
    deadline = time.monotonic() + 100
    while not kept.exists():
        assert time.monotonic() < deadline, device.output
        time.sleep(0.02)  # a file of another process: there is nothing to await
    device.kill()
    done = int(re.findall(r"step (\d+) of", device.output)[-1])
    again = site.device("phone-1", 0, "--step-time", "0.01")
    assert again.wait_for(r"^(a\d+): train from version 0")[1] == first
    # The first step is printed at once.
    assert done <= int(again.wait_for(r"step (\d+) of")[1]) <= done + 20
    assert again.wait() == 0
    assert server.wait() == 0
    assert f"{first}: accepted" in again.output


def test_an_update_that_was_finished_before_a_kill_is_handed_in_after_it(site: Site) -> None:
    server = site.serve(SETTINGS.format(versions=1).replace("buffer = 2", "buffer = 1"))
    device = site.device("phone-1", 0, "--step-time", "0.2")
    first = device.wait_for(r"^(a\d+): train from version 0")[1]
    device.wait_for(r"step \d+ of")
    server.kill()
    device.wait_for(r"trying again")
    device.kill()
    assert (site.folder / "phone-1" / "update" / "update.json").exists()
    server = site.serve(SETTINGS.format(versions=1).replace("buffer = 2", "buffer = 1"))
    again = site.device("phone-1", 0)
    assert again.wait() == 0
    assert server.wait() == 0
    # It is the first thing that the device does, before it asks for more.
    assert re.search(rf"^connected.*\n{first}: accepted", again.output, re.MULTILINE)
    assert site.query("SELECT assignment, merged_into FROM updates WHERE merged_into = 1") == [(first, 1)]


def test_a_device_whose_cache_is_damaged_fetches_it_again(site: Site) -> None:
    server = site.serve(SETTINGS.format(versions=1000))
    device = site.device("phone-1", 0, "--step-time", "0.02")
    device.wait_for("accepted")
    device.wait_for(r"step \d+ of")
    device.kill()
    folder = site.folder / "phone-1"
    (program,) = folder.glob("programs/*/program.pte")
    damaged = [program, *(path for path in (folder / "artifacts").iterdir() if path.suffix != ".part")]
    for path in damaged:
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    assert len(damaged) > 1
    again = site.device("phone-1", 0)
    again.wait_for("fetched again")
    again.wait_for("accepted")
    server.stop()
