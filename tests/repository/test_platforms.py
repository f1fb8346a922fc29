"""The table of platforms says what the workflows run, and no more."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped, unused-ignore]

from coordinator.cli.linux_commands import LINUX_COMMANDS

ROOT = Path(__file__).parents[2]
WORKFLOWS = ROOT / ".github" / "workflows"
PAGE = ROOT / "docs" / "how-to" / "install.md"
# The job of ci.yml that runs the tests of each of the table's parts.
JOBS = {
    "SDK and `ftte-device`": "sdk",
    "coordinator, exporter, simulator": "tests",
    "demo app in a window": "whole",
}
STATES = ("run here", "run by the workflow only", "not supported")


def table() -> dict[str, dict[str, str]]:
    """State by part, by runner."""
    lines = PAGE.read_text().split("## Platforms\n", 1)[1].split("\n## ", 1)[0].splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    (_, _, *parts), _, *rest = rows
    return {runner.strip("`"): dict(zip(parts, states, strict=True)) for _, runner, *states in rest}


def job(workflow: str, name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((WORKFLOWS / workflow).read_text())["jobs"][name]
    return found


def runners(of: dict[str, Any]) -> set[str]:
    """Every machine that the job runs on, its matrix filled in."""
    if "matrix.runner" not in of["runs-on"]:
        return {of["runs-on"]}
    matrix = of["strategy"]["matrix"]
    return {*matrix.get("runner", ()), *(each["runner"] for each in matrix.get("include", ()))}


def commands(of: dict[str, Any]) -> str:
    return "\n".join(step.get("run", "") for step in of["steps"])


@pytest.mark.parametrize("part", JOBS)
def test_what_the_table_calls_run_is_run_by_the_workflow_and_the_rest_is_not(part: str) -> None:
    rows = table()
    assert {state for row in rows.values() for state in row.values()} <= set(STATES)
    assert all(tuple(row) == tuple(JOBS) for row in rows.values())
    supported = {runner for runner, row in rows.items() if row[part] != "not supported"}
    assert runners(job("ci.yml", JOBS[part])) == supported


def test_the_jobs_run_tests() -> None:
    assert "pytest" in commands(job("ci.yml", "tests"))
    assert "bash .ci/run" in commands(job("ci.yml", "whole"))
    assert "tests/conformance/test_engines.py" in commands(job("ci.yml", "sdk"))


def test_the_sdks_job_names_tests_that_are_there() -> None:
    (called,) = re.findall(r"cd alone/(\S+)\n.*?pytest (.*)", commands(job("ci.yml", "sdk")), re.DOTALL)
    names = re.findall(r"(?<=\s)[\w/]+(?:\.py)?(?=\s)", f" {called[1].replace(chr(92), ' ')} ".replace(" ", "  "))
    names = [name for name in names if name not in ("q", "c")]
    assert len(names) > 10
    for name in names:
        assert (ROOT / called[0] / name).exists(), name


def test_released_wheels_are_run_wherever_a_part_is_supported() -> None:
    rows = table()
    installed = job("release.yml", "installed")
    assert runners(installed) == set(rows)
    for each in installed["strategy"]["matrix"]["include"]:
        whole = rows[each["runner"]]["coordinator, exporter, simulator"] != "not supported"
        assert each["whole"] == whole, each["runner"]


def test_the_page_names_the_commands_that_windows_has_not() -> None:
    text = " ".join(PAGE.read_text().split())
    (sentence,) = re.findall(r"`ftte demo`[^.]*need Linux or a Mac", text)
    assert set(re.findall(r"`(?:ftte )?(\w+)`", sentence)) == set(LINUX_COMMANDS)
