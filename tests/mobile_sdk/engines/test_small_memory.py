"""The CIFAR task trains where there are 128 MB for everything: interpreter, libraries, weights, data."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.cases import write

LIMIT = 128 * 1024 * 1024

TRAIN = """
import os, sys
from pathlib import Path

Path(sys.argv[2]).write_text(str(os.getpid()))  # from here on, everything counts

import numpy as np
from mobile_sdk import Client, load_engine, safetensors
from mobile_sdk.training.optimisers import SGD
from mobile_sdk.weights import map_weights

folder = Path(sys.argv[1])
engine = load_engine(folder, sys.argv[3])
arrays, _ = safetensors.loads((folder / "expected.safetensors").read_bytes())
weights = map_weights(engine.manifest.layout, [folder / "weights.safetensors"])
weights |= {name: np.array(weights[name]) for name in engine.manifest.subset}
optimiser = SGD(learning_rate=1e-3, momentum=0.9)
losses = []
for _ in range(20):
    loss, _, gradients = engine.train_step(*(arrays[name] for name in ("x", "y", "sample_weight")), weights)
    losses.append(loss)
    for name, step in optimiser.steps(gradients):
        weights[name][engine.manifest.subset.selector(name)] -= step
assert losses[-1] < losses[0], losses
assert Client.__name__ == "Client"
"""


@pytest.fixture
def group(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A control group of our own with the limit; its ``procs`` file takes processes."""
    name = f"ftte-test-{os.getpid()}"
    for parent, limit in (
        (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"),
        (Path("/sys/fs/cgroup"), "memory.max"),
    ):
        folder = parent / name
        try:
            folder.mkdir()
        except OSError:
            continue
        try:
            (folder / limit).write_text(str(LIMIT))
        except OSError:
            folder.rmdir()
            continue
        yield folder
        folder.rmdir()
        return
    pytest.skip("needs control groups that this user may write to (as root, /sys/fs/cgroup)")


@pytest.mark.full
@pytest.mark.parametrize("engine", ["native", "interpreted"])
def test_the_cifar_task_trains_in_a_group_of_128_mb(engine: str, group: Path, tmp_path: Path) -> None:
    folder = write("cifar", tmp_path / "program")
    done = subprocess.run(
        [sys.executable, "-c", TRAIN, folder, group / "cgroup.procs", engine],
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    peak = next((group / n for n in ("memory.max_usage_in_bytes", "memory.peak") if (group / n).exists()), None)
    if peak is not None:
        print(f"{engine}: at most {int(peak.read_text()) / 1e6:.0f} MB were charged to the group")


@pytest.mark.full
def test_the_limit_is_real(group: Path) -> None:
    """A process that wants twice as much is killed: without this, the test above could not fail."""
    greedy = "import os, sys; open(sys.argv[1], 'w').write(str(os.getpid())); bytearray(os.urandom(1)) * (256 << 20)"
    done = subprocess.run([sys.executable, "-c", greedy, group / "cgroup.procs"], check=False, capture_output=True)
    assert done.returncode == -9
