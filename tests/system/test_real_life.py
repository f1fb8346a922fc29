"""What happens to devices in people's pockets: kills at any instant, full disks, little memory."""

from __future__ import annotations

import json
import random
import re
import resource
import subprocess
import sys
import time
from pathlib import Path

from .conftest import Site

SETTINGS = """
[training]
epochs = 1
[payload]
update = "int8"
top_k = 0.2
[merge]
buffer = 1
[stop]
versions = {versions}
"""


def test_a_device_that_is_killed_again_and_again_loses_nothing_that_was_acknowledged(site: Site) -> None:
    server = site.serve(SETTINGS.format(versions=8))
    rng = random.Random(7)
    output = ""
    for _ in range(6):
        device = site.device("phone-1", 0, "--step-time", "0.01")
        device.wait_for("connected as")
        time.sleep(rng.uniform(0.0, 0.8))  # anywhere in downloading, training, writing, sending
        device.kill()
        output += device.output
    device = site.device("phone-1", 0)
    assert device.wait() == 0
    assert server.wait() == 0
    output += device.output
    assert "damaged" not in output
    told = re.findall(r"^(a\d+): accepted", output, re.MULTILINE)
    # What came after the last version waits for a run that is taken up again.
    updates = site.query("SELECT assignment, merged_into FROM updates WHERE discarded IS NULL")
    assert len(told) == len(set(told)), "none was acknowledged twice"
    assert {name for name, _ in updates} >= set(told)
    assert sorted(version for _, version in updates if version is not None) == list(range(1, 9))


def test_a_full_disk_costs_no_work_and_is_waited_for(site: Site) -> None:
    """A limit on the size of files stands for the disk: it can be set and lifted while the process runs."""
    server = site.serve(SETTINGS.format(versions=1).replace("[payload]", "[payload]\ndifferences = true\n#"))
    device = site.device("phone-1", 0, "--step-time", "0.1")
    first = device.wait_for(r"^(a\d+): train from version 0")[1]
    device.wait_for(r"step \d+ of")
    no_limit = resource.prlimit(device.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(device.pid, resource.RLIMIT_FSIZE, (20_000, no_limit[1]))
    device.wait_for("the update cannot be kept")
    resource.prlimit(device.pid, resource.RLIMIT_FSIZE, no_limit)
    device.wait_for(rf"{first}: accepted")
    assert device.wait() == 0
    assert server.wait() == 0
    assert device.output.count(f"{first}: train from version 0") == 1, "it was trained once"


CHILD = """
import json, re, sys
from pathlib import Path
from exporters.zoo.digits_data import part
from mobile_sdk import BlockingClient
from mobile_sdk.events import Connected, UpdateAccepted
from mobile_sdk.native.library import Program  # the runtime is part of what is there before

def status(name):
    return int(re.search(name + r":\\\\s+(\\\\d+)", Path("/proc/self/status").read_text())[1]) * 1024

data = part(0, of=4)
figures = {}

def tell(event):
    if isinstance(event, Connected):
        figures["idle_anonymous"], figures["idle"] = status("RssAnon"), status("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")
    elif isinstance(event, UpdateAccepted):
        figures["peak"] = status("VmHWM")
        figures["peak_anonymous"] = status("VmHWM") - status("RssFile") - status("RssShmem")

url, key, storage, budget = sys.argv[1:]
with BlockingClient(url, run="digits", key=key, dataset=data, storage=storage, budget=int(budget)) as client:
    client.run(tell)
    memory = client.manifest.memory
print(json.dumps({**figures, "measured": memory.measured_bytes, "budget": memory.budget_bytes}))
"""


def test_a_whole_client_process_trains_within_its_budget(site: Site, tmp_path: Path) -> None:
    """Growth of anonymous memory, from connected and idle to the peak of the first update, everything included."""
    server = site.serve("[merge]\nbuffer = 1\n[stop]\nversions = 1\n")
    budget = site.query("SELECT budget_bytes FROM tiers WHERE name = 'large'")[0][0]
    child = CHILD.replace("\\\\", "\\")
    command = [sys.executable, "-c", child, site.url, site.key, str(tmp_path / "device"), str(budget)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert server.wait() == 0
    figures = json.loads(done.stdout.splitlines()[-1])
    growth = figures["peak_anonymous"] - figures["idle_anonymous"]
    assert 0 < figures["measured"] <= figures["budget"] == budget
    assert growth <= figures["budget"] + 1_000_000
    assert figures["peak"] <= 70e6
