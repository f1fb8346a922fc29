"""A run plans what its devices train: one plan for all, or one per budget, and notices when that is changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from coordinator.config import Config, parse_config
from coordinator.errors import ConfigError, StoreError
from coordinator.programs.begin import begin_or_resume, with_found
from coordinator.programs.run_key import RunKey
from coordinator.programs.tiers import Tier
from coordinator.store.sqlite import SqliteStore
from coordinator.versions.differences import Downlink
from mobile_sdk import safetensors
from mobile_sdk.protocol.messages import ArtifactRef

RUN: dict[str, Any] = {
    "run": {"name": "dense", "task": "exporters.zoo.dense:mlp", "state": "state"},
    "budgets": {"small": "500KB", "large": "2MB"},
}


def begin(folder: Path, planning: dict[str, Any], **sections: Any) -> tuple[list[Tier], list[str]]:
    """The tiers of a run with this ``[planning]``, and what was said on the way; nothing is searched for long."""
    config: Config = parse_config(RUN | {"planning": {"shrink": False} | planning} | sections, folder)
    store = SqliteStore(config.run.state)
    said: list[str] = []
    try:
        key = RunKey.load_or_create(config.run.state / "run.key")
        return begin_or_resume(config, store, key, 0.0, said.append), said
    finally:
        store.close()


def test_a_common_run_has_one_program_sized_for_the_smallest_budget(tmp_path: Path) -> None:
    tiers, _ = begin(tmp_path, {"mode": "common", "selector": "magnitude"})
    assert [tier.name for tier in tiers] == ["small"]
    assert tiers[0].needs_bytes <= 500_000
    assert not (tmp_path / "state" / "planning.json").exists()
    again, said = begin(tmp_path, {"mode": "common", "selector": "magnitude"})
    assert again[0].record == tiers[0].record
    assert [line for line in said if not line.startswith("warning: ")] == [], "nothing is planned again"
    with pytest.raises(StoreError, match=r"another\s+\[planning\]"):
        begin(tmp_path, {"mode": "common", "selector": "fisher"})
    for stop, words in (({"goal": 0.1}, "stop.goal needs"), ({"accuracy": 0.9}, "stop.accuracy needs")):
        with pytest.raises(ConfigError, match=f"{words} a task with held-out data"):
            begin(tmp_path, {"mode": "common", "selector": "magnitude"}, stop=stop)


def test_a_learning_rate_is_found_when_a_run_begins_and_stays(tmp_path: Path) -> None:
    run = {"run": {"name": "digits", "task": "exporters.zoo.digits:task", "state": "state"}, "budgets": {"all": "2MB"}}
    planning = {"planning": {"mode": "common", "selector": "last-layers", "shrink": False}}
    config = parse_config(run | planning, tmp_path)
    rates: list[float] = []
    said: list[str] = []
    for _ in range(2):
        store = SqliteStore(config.run.state)
        key = RunKey.load_or_create(config.run.state / "run.key")
        begin_or_resume(config, store, key, 0.0, said.append)
        rates.append(with_found(config, store, ["accuracy"]).training.settings.learning_rate)
        own = parse_config(run | planning | {"training": {"learning_rate": 0.3}}, tmp_path)
        assert with_found(own, store, ["accuracy"]).training.settings.learning_rate == 0.3, "the run file's word"
        store.close()
    assert rates[0] == rates[1]
    assert 0.02 <= rates[0] <= 0.2, "the digits fit best at about 0.1"
    assert [line for line in said if line.startswith("training.learning_rate is ")] == [
        f"training.learning_rate is {rates[0]:g}: the task fits its samples with twice that"
    ]


@pytest.mark.full
def test_a_nested_run_has_a_program_per_budget_each_inside_the_next(tmp_path: Path) -> None:
    tiers, _ = begin(tmp_path, {"selector": "fisher"})
    assert [tier.name for tier in tiers] == ["small", "large"]
    assert set(tiers[0].positions.tolist()) < set(tiers[1].positions.tolist())


def test_frozen_weights_on_a_grid_are_sent_as_its_integers(tmp_path: Path) -> None:
    planning = {"mode": "common", "selector": "last-layers"}
    sent = {}
    for bits in (None, 5):
        folder = tmp_path / str(bits)
        folder.mkdir()
        tiers, _ = begin(folder, planning | ({} if bits is None else {"frozen_bits": bits}))
        store = SqliteStore(folder / "state")
        try:
            version = store.versions.latest()
            trained = set(tiers[0].manifest.subset)
            holding = [name for ref in version.weights for name in safetensors.loads(read(store, ref))[0]]
            assert sorted(holding) == sorted(p.name for p in tiers[0].manifest.layout)
            ways = Downlink(store.artifacts).differences((), version.weights)
            frozen = [ref for ref in version.weights if not trained & set(safetensors.loads(read(store, ref))[0])]
            short = {difference.target: len(content) for difference, content in ways.items()}
            sent[bits] = sum(short.get(ref.sha256, ref.size) for ref in frozen)
        finally:
            store.close()
    assert sent[5] < 0.25 * sent[None]


def read(store: SqliteStore, ref: ArtifactRef) -> bytes:
    """An artifact's content."""
    return store.artifacts.path(ref.sha256).read_bytes()
