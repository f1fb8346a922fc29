"""A new project is whole: it passes its own tests, and learns with devices on this machine."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from coordinator.cli.main import main
from coordinator.cli.new import KINDS, make_project
from coordinator.config import load_config
from coordinator.errors import CoordinatorError
from coordinator.simulation.world.scenario import load_scenario

FTTE = Path(sys.executable).with_name("ftte")


def begin(folder: Path, kind: str) -> Path:
    if kind == "sensors" and importlib.util.find_spec("aeon") is None:
        pytest.skip("needs the windows of the package aeon: pip install --no-deps aeon")
    make_project(folder, kind)
    return folder


def call(folder: Path, *command: str | Path) -> str:
    """A command as somebody types it in the project's folder."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "FTTE"))}
    result = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=900, check=False, env=environment
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_file_is_filled_in_and_the_settings_are_good(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "my_project"
    for file in make_project(folder, kind):
        if file.suffix != ".png":
            text = file.read_text()
            assert not re.search(r"PROJECT|ABOUT|FIRST_STEPS|SMALL|LARGE|GOAL", text), file.name
            if file.suffix == ".py":
                compile(text, file.name, "exec")
    config = load_config(folder / "run.toml")
    assert config.run.name == "my_project"
    for name in ("run.toml", "scenario.toml"):
        written = tomllib.loads((folder / name).read_text())
        assert not written.keys() & {"training", "merge"}, "what has a good default is not written down"
    assert config.local.data == "my_project.data:part({index}, of={devices})"
    assert load_scenario(folder / "scenario.toml").data.source == "my_project.data:training"


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_what_to_do_next_begins_with_what_the_samples_need(
    tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "my_project"
    assert main(["new", str(folder), "--from", kind]) == 0
    steps = [line.split("  ")[1] for line in capsys.readouterr().out.splitlines()[1:]]
    data = (folder / "my_project" / "data.py").read_text()
    fetch = re.findall(r"pip install --no-deps \w+", data)[:1]
    assert steps == [f"cd {folder}", *fetch, "python -m pytest", "ftte run run.toml"]
    assert all(f"\n{step} " in (folder / "README.md").read_text() for step in steps[1:])


@pytest.mark.parametrize("name", ["my project", "2nd", "class", "torch", "tests", "é", "a" * 65])
def test_a_name_that_python_cannot_import_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(CoordinatorError, match=r"cannot be the name|is the name of a package"):
        make_project(tmp_path / name, "table")
    assert not (tmp_path / name).exists()


def test_nothing_that_is_there_is_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "run.toml").write_text("precious")
    assert main(["new", str(tmp_path / "mine")]) == 1
    assert "has something in it already" in capsys.readouterr().err
    assert [each.name for each in (tmp_path / "mine").iterdir()] == ["run.toml"]


@pytest.mark.full
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_project_passes_its_own_tests_and_learns_on_this_machine(tmp_path: Path, kind: str) -> None:
    folder = begin(tmp_path / "my_project", kind)
    assert "3 passed" in call(folder, sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider")
    call(folder, FTTE, "run", "run.toml")
    summary = json.loads((folder / "state" / "summary.json").read_text())
    assert len(summary["devices"]) == 4
    assert {device["tier"] for device in summary["devices"]} <= {"small", "large"}
    assert not any(device["torch_loaded"] for device in summary["devices"])
    assert summary["accuracy"] > summary["initial_accuracy"] + 0.1
    call(folder, FTTE, "simulate", "scenario.toml", "--set", "stop.versions=3")
