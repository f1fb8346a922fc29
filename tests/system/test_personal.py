"""Parameters that are local are trained, used and kept on the device; nobody else ever sees them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mobile_sdk import BlockingClient, safetensors
from mobile_sdk.events import Event, Personal, from_json, to_json
from mobile_sdk.manifest import Manifest

from . import personal_task
from .conftest import BIN, Process

RUN = """
[run]
name = "personal"
task = "tests.system.personal_task:task"
[server]
port = 0
[budgets]
all = "5MB"
[training]
epochs = 5
learning_rate = 0.1
[merge]
buffer = 2
[stop]
versions = 8
"""


@pytest.fixture
def server(tmp_path: Path) -> Any:
    (tmp_path / "run.toml").write_text(RUN)
    root = str(Path(__file__).parents[2])
    process = Process(
        BIN / "ftte", "serve", tmp_path / "run.toml", log=tmp_path / "serve.log", environment={"PYTHONPATH": root}
    )
    yield process
    process.stop()


def test_devices_that_disagree_are_served_by_heads_of_their_own(server: Process, tmp_path: Path) -> None:
    joined = server.wait_for(r"(ws://[\d.:]+)[\s\\]+--run personal[\s\\]+--key[\s\\]+([0-9a-f]{64})")
    url, key = joined[1], joined[2]
    told: dict[int, list[Event]] = {0: [], 1: []}
    clients = [
        BlockingClient(
            url, run="personal", key=key, dataset=personal_task.samples(i), storage=tmp_path / str(i), name=f"d{i}",
            held_out=personal_task.samples(i + 10),
        )
        for i in range(2)
    ]  # fmt: skip
    for i, client in enumerate(clients):
        client.start(told[i].append)
    for client in clients:
        client.wait(120)
    assert server.wait() == 0

    for i, client in enumerate(clients):
        x, y = personal_task.samples(i + 10)
        assert np.mean(client.predict(x).argmax(1) == y) > 0.85, "predictions are personal"
        client.close()
        last = [event for event in told[i] if isinstance(event, Personal)][-1]
        assert last.held_out
        assert last.samples == 200
        assert last.personal_metrics["accuracy"] > 0.85
        assert from_json(to_json(last)) == last

    summary = json.loads((tmp_path / "state" / "summary.json").read_text())
    both = summary["on_devices"]["accuracy"]
    assert both["personal"] > 0.85, "and no common head can serve both:"
    assert both["global"] < 0.7

    # Nothing on the coordinator's disk holds anything of a head but its first value.
    initial = None
    for path in (tmp_path / "state").rglob("*"):
        if path.is_file() and path.read_bytes()[8:9] == b"{":
            try:
                arrays, _ = safetensors.loads(path.read_bytes())
            except Exception:
                continue
            if "head.weight" in arrays:
                initial = arrays["head.weight"] if initial is None else initial
                np.testing.assert_array_equal(arrays["head.weight"], initial)
            assert not any(name.startswith("head") and ":" in name for name in arrays)
    assert initial is not None
    own, _ = safetensors.loads((tmp_path / "0" / "local.safetensors").read_bytes())
    assert set(own) == {"head.weight", "head.bias"}
    assert (own["head.weight"] != initial).any()
    (manifest,) = (tmp_path / "0" / "programs").glob("*/manifest.json")
    parsed = Manifest.from_bytes(manifest.read_bytes())
    assert parsed.local == ("head.weight", "head.bias")
    assert set(parsed.subset) == {"body.weight", "body.bias"}
    assert set(parsed.trained) == {"body.weight", "body.bias", "head.weight", "head.bias"}
