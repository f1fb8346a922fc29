"""Whole simulations: the product's coordinator and clients, hundreds of virtual seconds."""

from __future__ import annotations

import csv
import json
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from coordinator.cli.main import main
from coordinator.errors import ConfigError
from coordinator.simulation.simulate import simulate
from coordinator.simulation.world.scenario import Scenario, parse_scenario

DIGITS = Path(__file__).parents[3] / "scenarios" / "digits.toml"

# Pinned, so that no test depends on how fast this machine is.
STEPS = {"small": 0.001, "large": 0.01}


def digits(**changes: Mapping[str, Any]) -> Scenario:
    """The scenario of the repository, shortened and changed."""
    data = tomllib.loads(DIGITS.read_text())
    data["stop"] = {"versions": 6}
    data["planning"] = {"shrink": False}  # a search of half the length
    data["simulation"] |= {"step_seconds": STEPS}
    for section, values in changes.items():
        data[section] = data.get(section, {}) | values
    return parse_scenario(data, DIGITS.parent)


Facts = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def plans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Programs are planned once."""
    return tmp_path_factory.mktemp("plans") / "digits"


@pytest.fixture(scope="module")
def facts(plans: Path) -> Facts:
    """Simulate: all of a result but what the simulation itself took."""

    def simulated(scenario: Scenario, workers: int = 0, history: Path | None = None) -> dict[str, Any]:
        result = simulate(scenario, workers=workers, plans=plans, history=history)
        del result["machine"]
        return result

    return simulated


@pytest.fixture(scope="module")
def alone(facts: Facts) -> dict[str, Any]:
    """The scenario, trained in this process."""
    return facts(digits())


def test_the_number_of_workers_changes_nothing(facts: Facts, alone: dict[str, Any]) -> None:
    """Weights, bytes, times, staleness: equal to the last bit."""
    assert facts(digits(), workers=2) == alone
    assert alone["trips"] == 24
    assert alone["versions"] == 6


def test_devices_learn_and_are_counted(alone: dict[str, Any]) -> None:
    """Version 0 knows nothing; phones and watches take part; bytes are those of the curve."""
    first, last = alone["curve"][0], alone["curve"][-1]
    assert first["metrics"]["accuracy"] < 0.2
    assert all(point["trips"] == 4 * point["version"] for point in alone["curve"])
    assert last["metrics"]["accuracy"] > 0.4
    assert alone["classes"]["phone"]["devices"] == 12
    assert alone["classes"]["watch"]["devices"] == 4
    assert alone["classes"]["stragglers"]["devices"] == 4
    assert sum(alone["staleness"].values()) == 24
    assert 0 < last["bytes_up"] <= alone["bytes_up"]
    assert 0 < last["seconds"] == alone["seconds"]


def test_the_seed_decides(facts: Facts, alone: dict[str, Any]) -> None:
    """Another seed is another fleet, another split and another result."""
    other = facts(digits(simulation={"seed": 2}))
    assert other["weights_sha256"] != alone["weights_sha256"]
    assert other["seconds"] != alone["seconds"]


def test_paths_of_a_scenario_start_at_its_file(tmp_path: Path) -> None:
    data = tomllib.loads(DIGITS.read_text()) | {"tracking": {"tensorboard": "boards"}}
    config = parse_scenario(data, tmp_path / "here").config(tmp_path / "elsewhere")
    assert config.tracking.tensorboard == tmp_path / "here" / "boards"


@pytest.mark.full
def test_every_tracker_has_the_curves_of_a_simulation(
    facts: Facts, alone: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By their own libraries; and what they are told changes nothing of the result."""
    import wandb
    from mlflow.tracking import MlflowClient

    from ..tracking.test_trackers import scalars, wandb_rows

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    uri = (tmp_path / "mlruns").as_uri()
    tracking = {"tensorboard": str(tmp_path / "boards"), "mlflow": uri, "wandb": "fleet"}
    assert facts(digits(tracking=tracking), history=tmp_path / "history") == alone
    wandb.teardown()
    expected = {point["version"]: point["metrics"]["accuracy"] for point in alone["curve"] if point["version"]}
    board = {step: value for tag, step, value in scalars(tmp_path / "boards") if tag == "metrics/accuracy"}
    assert {step: board[step] for step in expected} == pytest.approx(expected)
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("ftte")
    assert experiment is not None
    (begun,) = client.search_runs([experiment.experiment_id])
    logged = {each.step: each.value for each in client.get_metric_history(begun.info.run_id, "accuracy")}
    assert {step: logged[step] for step in expected} == pytest.approx(expected)
    lines = list(csv.DictReader((tmp_path / "history" / "versions.csv").read_text().splitlines()))
    assert {int(line["version"]): float(line["accuracy"]) for line in lines} == expected
    (kept,) = (tmp_path / "history" / "wandb").rglob("run-*.wandb")
    rows = {row["_step"]: row["metrics/accuracy"] for row in wandb_rows(kept)}
    assert {step: rows[step] for step in expected} == pytest.approx(expected)


def test_it_is_said_how_well_classes_are_known_that_stragglers_alone_have(facts: Facts, alone: dict[str, Any]) -> None:
    assert "straggler_classes" not in alone
    result = facts(digits(data={"straggler_classes": [8, 9]}, stragglers={"share": 0.3}))
    known = result["straggler_classes"]
    assert known["classes"] == [8, 9]
    assert known["metrics"].keys() == result["curve"][-1]["metrics"].keys()
    assert known["metrics"]["loss"] > result["curve"][-1]["metrics"]["loss"]


def test_virtual_time_is_that_of_the_scenario(facts: Facts) -> None:
    """Hours end a run that nothing else ends, and a night without devices passes without a trip."""
    asleep = {"memory": "5MB", "online": [[8, 20]]}
    scenario = digits(
        simulation={"hours": 7, "start": 0},
        devices={"phone": asleep, "watch": asleep},
        stragglers={"share": 0},
    )
    result = facts(scenario)
    assert result["ended"] == "7 hours are over"
    assert result["seconds"] == 7 * 3600
    assert result["trips"] == 0
    assert result["classes"].keys() == {"phone", "watch"}, "there are no stragglers, so nobody is another"


def test_apps_that_are_killed_come_back(facts: Facts) -> None:
    """A device that drops out half-way takes its assignment up again."""
    fragile = {"memory": "5MB", "drop_out": 0.4, "away": 30, "outages_per_hour": 600, "outage": 2, "up": "20KB"}
    result = facts(digits(devices={"phone": fragile, "watch": fragile}))
    assert result["versions"] == 6
    assert result["drop_outs"] > 0


def test_what_a_trip_takes_beside_its_steps_is_counted(facts: Facts) -> None:
    """Ten seconds for each trip are ten seconds more than its steps take."""
    alike: dict[str, Any] = {"data": {"split": "even", "samples": 60}, "stragglers": {"share": 0.0}}
    kinds = {"phone": {"memory": "1.2MB"}, "watch": {"memory": "1.2MB"}}
    usual = facts(digits(devices=kinds, **alike))
    slow = facts(digits(devices={kind: section | {"trip_seconds": 10.0} for kind, section in kinds.items()}, **alike))
    assert _seconds_of_a_training(slow) == pytest.approx(_seconds_of_a_training(usual) + 10.0)
    assert slow["seconds"] > usual["seconds"] + 10.0


def _seconds_of_a_training(result: dict[str, Any]) -> float:
    kinds = [result["classes"][kind] for kind in ("phone", "watch")]
    seconds: float = sum(kind["devices"] * kind["compute_seconds_each"] for kind in kinds) / result["trainings"]
    return seconds


def test_synchronous_rounds_wait_for_their_cohort(facts: Facts) -> None:
    """Every update is of the version that it is merged into, and nobody else is asked meanwhile."""
    sync = {"cohort": 4, "repeat": False}
    result = facts(digits(scheduling=sync, merge={"buffer": 4, "flush_seconds": 0}))
    assert result["staleness"] == {"0": 24}
    assert result["trainings"] == 24


def test_over_selection_drops_the_late(facts: Facts) -> None:
    """Six are asked, the first four are merged, and what comes after that is refused."""
    sync = {"cohort": 6, "repeat": False}
    merge = {"buffer": 4, "flush_seconds": 0, "staleness": {"maximum": 0}}
    result = facts(digits(scheduling=sync, merge=merge))
    # An update that comes while four are being merged was in time, and waits for the next merge.
    assert set(result["staleness"]) <= {"0", "1"}
    assert result["trainings"] > 24


def test_the_command_says_what_to_expect(
    facts: Facts, plans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """How the run would end, what it costs each class of devices, and all of it as JSON."""
    facts(digits(stop={"versions": 1}))  # so that there are plans
    scenario, result = tmp_path / "scenario.toml", tmp_path / "result.json"
    scenario.write_text(DIGITS.read_text().replace("accuracy = 0.95", "versions = 2"))
    command = [
        "simulate",
        str(scenario),
        "--out",
        str(result),
        "--workers",
        "0",
        "--programs",
        str(plans),
        "--seed",
        "5",
        "--set",
        "planning.shrink=false",
    ]
    assert main(command) == 0
    shown = capsys.readouterr().out
    assert "version 2 has reached the limit of 2" in shown
    assert "watch" in shown
    assert "WARNING" not in shown, "updates in flight when a run stops are always too late"
    assert json.loads(result.read_text())["versions"] == 2
    assert main([*command, "--json"]) == 0
    printed, kept = json.loads(capsys.readouterr().out), json.loads(result.read_text())
    assert printed == kept
    assert printed["versions"] == 2


def test_a_device_that_no_program_fits_is_found_before_anything_is_planned() -> None:
    said: list[str] = []
    scenario = digits(devices={"watch": {"memory": "10KB"}})
    with pytest.raises(
        ConfigError, match=r"devices\.watch\.memory: no plan of task .* fits 10.0 KB.*set at least that"
    ):
        simulate(scenario, workers=0, say=said.append)
    assert [text for text in said if not text.startswith("warning: ")] == [
        "importing torch, to check devices.watch.memory"
    ]


def test_memory_below_the_smallest_budget_is_warned_of_and_below_the_smallest_program_refused(
    plans: Path, facts: Facts
) -> None:
    facts(digits(stop={"versions": 1}))  # so that there are plans
    scenario, said = digits(devices={"watch": {"memory": "200KB"}}), list[str]()
    with pytest.raises(ConfigError, match=r"devices\.watch\.memory is 200.0 KB, and the smallest tier, small, needs"):
        simulate(scenario, workers=0, plans=plans, say=said.append)
    assert any("devices.watch.memory 200.0 KB is less than the smallest budget" in text for text in said)


def test_a_mistake_in_a_scenario_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """File, key and value."""
    (tmp_path / "scenario.toml").write_text(DIGITS.read_text().replace("devices = 16", "devices = 0"))
    assert main(["simulate", str(tmp_path / "scenario.toml")]) == 1
    assert "simulation.devices" in capsys.readouterr().err
