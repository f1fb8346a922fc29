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
from typing import Any

import numpy as np
import pytest

from exporters.zoo.digits_data import part

from .conftest import BIN, Process, Site

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
import numpy as np
from mobile_sdk import BlockingClient
from mobile_sdk.events import Connected
from mobile_sdk.native.library import NativeProgram  # the runtime is part of what is there before
from mobile_sdk.system import memory as process_memory

def status(name):
    return int(re.search(name + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024

def files():
    return status("RssFile") + status("RssShmem")

url, key, storage, budget, samples, *keep_code = sys.argv[1:]
data = tuple(np.load(samples)[name] for name in "xy")
figures = {"peak": 0, "peak_anonymous": 0}
mapped = 0

def tell(event):
    # The peak since the last event, without what was mapped from files at its begin or its end, whichever is more.
    global mapped
    peak, now = status("VmHWM"), files()
    if isinstance(event, Connected) and "idle_anonymous" not in figures:
        figures["idle_anonymous"] = status("RssAnon")
    elif "idle_anonymous" in figures:
        figures["peak"] = max(figures["peak"], peak)
        figures["peak_anonymous"] = max(figures["peak_anonymous"], peak - max(mapped, now))
    mapped = now
    Path("/proc/self/clear_refs").write_text("5")

if keep_code:  # what is mapped only grows, else the anonymous part of a peak could not be told
    process_memory.release_code = lambda: 0

with BlockingClient(url, run="digits", key=key, dataset=data, storage=storage, budget=int(budget)) as client:
    client.run(tell)
    memory, trained = client.manifest.memory, 4 * client.manifest.trained.size
print(json.dumps({**figures, "measured": memory.measured_bytes, "budget": memory.budget_bytes, "trained": trained}))
""".replace("\\\\", "\\")


def trained(
    url: str, key: str, budget: int, folder: Path, samples: tuple[Any, Any], *, keep_code: bool
) -> dict[str, int]:
    """What a client's process took, from connected and idle to the end of the run: bytes."""
    np.savez(folder / "samples.npz", x=samples[0], y=samples[1])
    command = [sys.executable, "-c", CHILD, url, key, str(folder / "device"), str(budget), str(folder / "samples.npz")]
    command += ["keep-code"] if keep_code else []
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    figures: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    figures["growth"] = figures["peak_anonymous"] - figures["idle_anonymous"]
    # What the runtime takes once, and the update on its way.
    figures["more"] = 3_000_000 + figures["trained"]
    return figures


def test_a_whole_client_process_trains_within_its_budget(site: Site, tmp_path: Path) -> None:
    """Growth of anonymous memory: downloading, training, packing and sending, everything included."""
    server = site.serve("[merge]\nbuffer = 1\n[stop]\nversions = 2\n")
    budget = site.query("SELECT budget_bytes FROM tiers WHERE name = 'large'")[0][0]
    figures = trained(site.url, site.key, budget, tmp_path, part(0, of=4), keep_code=True)
    assert server.wait() == 0
    assert 0 < figures["measured"] <= figures["budget"] == budget
    assert figures["growth"] <= figures["measured"] + figures["more"]
    assert figures["peak"] <= 70e6


@pytest.mark.full
@pytest.mark.parametrize(("budget", "peak"), [(3_000_000, 64e6), (60_000_000, 95e6)])
def test_so_does_one_whose_weights_are_larger_than_its_budget(
    site: Site, tmp_path: Path, budget: int, peak: float
) -> None:
    """The net of ExecuTorch's CIFAR example has 4.6 MB of weights; what is not trained stays in its file."""
    server, key = cifar(site, tmp_path)
    figures = trained(site.url, key, budget, tmp_path, IMAGES, keep_code=True)
    assert server.wait() == 0
    assert 0 < figures["measured"] <= figures["budget"] == budget
    assert figures["growth"] <= figures["measured"] + figures["more"]
    assert figures["peak"] <= peak


@pytest.mark.full
def test_a_whole_client_process_that_trains_it_within_3_mb_stays_below_50(site: Site, tmp_path: Path) -> None:
    """Interpreter, libraries, weights and training together, since code that only the start needed is let go."""
    server, key = cifar(site, tmp_path)
    figures = trained(site.url, key, 3_000_000, tmp_path, IMAGES, keep_code=False)
    assert server.wait() == 0
    assert figures["peak"] <= 50e6


RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.normal(size=(64, 3, 32, 32)).astype(np.float32), RANDOM.integers(0, 10, 64)


def cifar(site: Site, tmp_path: Path) -> tuple[Process, str]:
    """A coordinator of two versions of ExecuTorch's CIFAR example, and its run's key."""
    folder = tmp_path / "cifar"
    folder.mkdir()
    run_file = folder / "run.toml"
    run_file.write_text(
        f'[run]\nname = "digits"\ntask = "exporters.zoo.convnets:cifar"\n[server]\nport = {site.port}\n'
        f'[budgets]\nsmall = "3MB"\nlarge = "60MB"\n[merge]\nbuffer = 1\n[stop]\nversions = 2\n'
    )
    server = site.keep(Process(BIN / "ftte", "serve", run_file, log=folder / "serve.log"))
    return server, server.wait_for(r"--key (\w+)")[1]
