"""Every tracker has the run's curves, by its own library; none can stop or slow a run."""

from __future__ import annotations

import csv
import json
import logging
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from coordinator.config import Config, parse_config
from coordinator.errors import ConfigError
from coordinator.simulation.virtual_time import run
from coordinator.tracking import trackers as trackers_module
from coordinator.tracking.from_config import open_trackers
from coordinator.tracking.tracker import TrackedPhase, TrackedTrip, TrackedUpdate, TrackedVersion
from coordinator.tracking.trackers import Trackers
from tests.coordinator.small_run import accept_update, make_run

TRACE = f"00-{'ab' * 16}-{'cd' * 8}-01"
TRIP = TrackedTrip(TRACE, 0, 100, 1e9, 1e9 + 1, {"away": 5.0, "upload": 1.0})


def version(number: int, accuracy: float = 0.5) -> TrackedVersion:
    metrics = {"accuracy": accuracy, "loss": 1 - accuracy}
    return TrackedVersion(number, number - 1, "merge", 1e9 + number, metrics, 2, 1.5, 0.75, 2, 100 * number, 50)


def config(folder: Path, **tracking: str) -> Config:
    run = {"name": "digits", "task": "a.b:c"}
    return parse_config({"run": run, "budgets": {"small": "1MB"}, "tracking": tracking}, folder)


def told(folder: Path, **tracking: str) -> None:
    """Two versions and three phases, through every tracker that the run file asks for."""
    opened = open_trackers(config(folder, **tracking), ("loss", "accuracy"), folder / "state" / "history")
    opened.tell(TrackedPhase("running", "started", 1e9))
    opened.tell(TrackedUpdate(1, "small", 3, 0.5, 40, 0.25, TRIP))
    opened.tell(version(1, 0.5))
    opened.tell(version(2, 0.75))
    opened.tell(TrackedPhase("finished", "enough", 1e9 + 9))
    opened.close()


class Listener:
    """A tracker that keeps what it is told; it waits for ``gate`` before every event, and fails at ``fails_at``."""

    def __init__(self, fails_at: int | None = None) -> None:
        self.heard: list[Any] = []
        self.gate = threading.Event()
        self.gate.set()
        self.fails_at = fails_at

    def _hear(self, event: Any) -> None:
        self.gate.wait(60)
        if len(self.heard) == self.fails_at:
            raise RuntimeError("no connection")
        self.heard.append(event)

    on_version = on_update = on_phase = _hear

    def close(self) -> None:
        self._hear("closed")


def test_the_history_has_a_line_a_version_and_every_event(tmp_path: Path) -> None:
    told(tmp_path)
    folder = tmp_path / "state" / "history"
    rows = list(csv.DictReader((folder / "versions.csv").read_text().splitlines()))
    assert [(row["version"], row["accuracy"], row["staleness"], row["bytes_up"]) for row in rows] == [
        ("1", "0.5", "1.5", "100"),
        ("2", "0.75", "1.5", "200"),
    ]
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    assert [event["event"] for event in events] == ["phase", "update", "version", "version", "phase"]
    assert events[1] == {
        "event": "update",
        "version": 1,
        "tier": "small",
        "staleness": 3,
        "weight": 0.5,
        "samples": 40,
        "loss": 0.25,
        "trip": {
            "traceparent": TRACE,
            "version": 0,
            "bytes_up": 100,
            "received_at": 1e9,
            "merged_at": 1e9 + 1,
            "parts": {"away": 5.0, "upload": 1.0},
        },
    }


def test_a_restart_goes_on_below_what_is_there(tmp_path: Path) -> None:
    for _ in range(2):
        told(tmp_path)
    folder = tmp_path / "state" / "history"
    assert len((folder / "versions.csv").read_text().splitlines()) == 1 + 2 * 2
    assert len((folder / "events.jsonl").read_text().splitlines()) == 2 * 5


def scalars(folder: Path) -> Iterator[tuple[str, int, float]]:
    """What TensorBoard's event files say: records of length, checksum, protocol buffer, checksum."""
    from tensorboardX.proto import event_pb2

    for path in sorted(folder.rglob("events.out.tfevents.*")):
        content = path.read_bytes()
        while content:
            (size,) = struct.unpack("<Q", content[:8])
            event = event_pb2.Event.FromString(content[12 : 12 + size])
            content = content[16 + size :]
            for value in event.summary.value:
                if value.WhichOneof("value") == "simple_value":
                    yield value.tag, event.step, value.simple_value


def test_tensorboard_has_the_curves(tmp_path: Path) -> None:
    told(tmp_path, tensorboard="boards")
    found = list(scalars(tmp_path / "boards" / "digits"))
    assert [entry for entry in found if entry[0] == "metrics/accuracy"] == [
        ("metrics/accuracy", 1, 0.5),
        ("metrics/accuracy", 2, 0.75),
    ]
    assert ("merge/staleness", 2, 1.5) in found
    assert ("bytes/up", 2, 200.0) in found


def test_mlflow_has_the_curves_in_one_run_over_restarts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.tracking import MlflowClient

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    uri = (tmp_path / "mlruns").as_uri()
    for _ in range(2):
        told(tmp_path, mlflow=uri)
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("ftte")
    assert experiment is not None
    (begun,) = client.search_runs([experiment.experiment_id])
    assert begun.info.run_name == "digits"
    assert begun.info.status == "FINISHED"
    assert begun.data.tags["ftte.phase"] == "finished: enough"
    history = client.get_metric_history(begun.info.run_id, "accuracy")
    assert {(metric.step, metric.value) for metric in history} == {(1, 0.5), (2, 0.75)}


def _wandb_records(content: bytes) -> Iterator[bytes]:
    """The records of a ``.wandb`` file: LevelDB's log format in blocks of 32 KiB, behind a header of seven bytes."""
    record, at = b"", 7
    while at + 7 <= len(content):
        left = 32_768 - at % 32_768
        if left < 7:  # no room for a header: the block's end is padding
            at += left
            continue
        size, kind = struct.unpack("<HB", content[at + 4 : at + 7])
        record += content[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or the last part
            yield record
            record = b""


def wandb_rows(path: Path) -> Iterator[dict[str, Any]]:
    """What a file of Weights & Biases says of each step."""
    from wandb.proto import wandb_internal_pb2

    made: Any = wandb_internal_pb2  # made by protoc: no names in it are known

    for data in _wandb_records(path.read_bytes()):
        record = made.Record()
        record.ParseFromString(data)
        if record.WhichOneof("record_type") == "history":
            row = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
            yield {**row, "_step": record.history.step.num}


def test_weights_and_biases_has_the_curves_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import wandb

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "wandb"))
    told(tmp_path, wandb="fleet")
    wandb.teardown()  # its own process writes the file, and has done so when it has ended
    (kept,) = (tmp_path / "state" / "history").rglob("run-*.wandb")
    rows = list(wandb_rows(kept))
    assert [(row["_step"], row["metrics/accuracy"], row["merge/staleness"]) for row in rows] == [
        (1, 0.5, 1.5),
        (2, 0.75, 1.5),
    ]


def test_a_tracker_whose_library_is_missing_is_refused_with_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(ConfigError, match=r"tracking.tensorboard needs .* pip install 'ftte\[tensorboard\]'"):
        open_trackers(config(tmp_path, tensorboard="boards"), (), None)


def test_a_tracker_that_cannot_be_opened_is_refused_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "boards").write_text("a file")
    with pytest.raises(ConfigError, match=r"tracking\.tensorboard cannot be opened"):
        open_trackers(config(tmp_path, tensorboard="boards"), (), None)


def test_a_tracker_that_fails_says_so_once_and_the_others_go_on(caplog: pytest.LogCaptureFixture) -> None:
    bad, good = Listener(fails_at=1), Listener()
    opened = Trackers("digits", {"bad": bad, "good": good})
    with caplog.at_level(logging.ERROR):
        for number in range(1, 5):
            opened.tell(version(number))
        opened.close()
    assert [event.version for event in bad.heard[:1]] == [1]
    assert [getattr(event, "version", event) for event in good.heard] == [1, 2, 3, 4, "closed"]
    said = [record.getMessage() for record in caplog.records]
    assert said == [
        "the tracker bad of the run digits has failed and is told nothing more: RuntimeError: no connection"
    ]


def test_a_slow_tracker_delays_nobody_and_what_it_misses_is_counted(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(trackers_module, "MOST_WAITING", 3)
    slow = Listener()
    slow.gate.clear()
    opened = Trackers("digits", {"slow": slow})
    with caplog.at_level(logging.WARNING):
        for number in range(1, 11):
            opened.tell(version(number))  # returns at once though nothing is taken
        slow.gate.set()
        opened.close()
    heard = [event.version for event in slow.heard[:-1]]
    assert heard == sorted(heard)
    assert 3 <= len(heard) <= 4, "what waited, and what was under way"
    missed = 10 - len(heard)
    assert [record.getMessage() for record in caplog.records] == [
        "the tracker slow of the run digits is too slow: events are left out",
        f"the tracker slow of the run digits missed {missed} events",
    ]


def test_a_run_tells_its_trackers_of_phases_updates_and_versions_and_of_no_device(tmp_path: Path) -> None:
    listener = Listener()
    opened = Trackers("small", {"listener": listener})

    async def main() -> None:
        given = make_run(tmp_path, merge={"buffer": 2}, stop={"versions": 1})
        coordinator = given.coordinator(lambda vector: {"accuracy": 0.5}, trackers=opened)
        for device in ("phone-1", "phone-2"):
            accept_update(coordinator.state, device)
        await coordinator.run()
        given.store.close()

    run(main())
    opened.close()
    events = listener.heard[:-1]
    assert [type(event) for event in events] == [
        TrackedPhase,
        TrackedUpdate,
        TrackedUpdate,
        TrackedVersion,
        TrackedPhase,
    ]
    assert [event.phase for event in (events[0], events[-1])] == ["running", "finished"]
    assert (events[1].version, events[1].tier, events[1].staleness, events[1].samples) == (1, "small", 0, 10)
    assert (events[3].version, events[3].updates, events[3].staleness) == (1, 2, 0.0)
    assert events[3].metrics == {"accuracy": 0.5}
    assert "phone" not in repr(events)
