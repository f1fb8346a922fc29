"""``ftte run``: which devices there are, what they have, and a whole run of them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from coordinator.cli.main import main
from coordinator.cli.run import devices_folder, local_fleet
from coordinator.config import Config, parse_config
from coordinator.errors import ConfigError

FTTE = Path(sys.executable).with_name("ftte")
RUN = """\
[run]
name = "digits"
task = "exporters.zoo.digits:task"
[server]
port = 0
token = "let-me-in"
[budgets]
all = "4MB"
[training]
epochs = 1
[merge]
buffer = 2
[stop]
versions = 3
[local]
devices = 2
data = "exporters.zoo.digits_data:part({index}, of=8)"
"""


def config(**local: Any) -> Config:
    data = {"run": {"name": "a", "task": "a:b"}, "budgets": {"small": 1000, "large": 2000}, "local": local}
    return parse_config(data, Path())


def test_devices_take_the_budgets_in_turn_and_a_part_each() -> None:
    fleet = local_fleet(config(devices=3, data="mine.data:part({index}, of={devices})"))
    assert [(device.name, device.data, device.budget) for device in fleet] == [
        ("device-0", "mine.data:part(0, of=3)", 1000),
        ("device-1", "mine.data:part(1, of=3)", 2000),
        ("device-2", "mine.data:part(2, of=3)", 1000),
    ]


def test_a_run_file_that_does_not_say_what_devices_have_is_told_how() -> None:
    with pytest.raises(ConfigError, match=r"local\.data is missing.*give --data"):
        local_fleet(config())


def test_runs_side_by_side_have_devices_of_their_own() -> None:
    assert devices_folder(Path("mine/state")) == Path("mine/devices")
    assert devices_folder(Path("mine/state-2")) == Path("mine/state-2-devices")


def test_options_take_the_place_of_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run.toml").write_text(RUN)
    assert main(["run", str(tmp_path / "run.toml"), "--devices", "0"]) == 1
    assert "local.devices" in capsys.readouterr().err


@pytest.mark.full
def test_a_run_with_devices_that_enrol_by_a_token_ends_well(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(RUN)
    result = subprocess.run(
        [FTTE, "run", "run.toml"], cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    summary = json.loads((tmp_path / "state" / "summary.json").read_text())
    assert (summary["versions"], len(summary["devices"])) == (3, 2)
    log = tmp_path / "devices" / "device-0" / "log.txt"
    before = log.read_text()
    again = subprocess.run(
        [FTTE, "run", "run.toml"], cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False
    )
    assert again.returncode == 0, again.stdout + again.stderr
    assert "it had ended before: remove" in again.stdout
    assert log.read_text() == before, "no device was started"
