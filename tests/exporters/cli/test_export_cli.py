"""``ftte export`` writes a program that a device can load, and says what it costs."""

from __future__ import annotations

import argparse
import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from exporters import ExportError
from exporters.cli.export import add_export_command
from exporters.cli.plan import add_plan_command
from mobile_sdk import load_engine
from mobile_sdk.errors import FtteError


def run(*arguments: str) -> tuple[int, str]:
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(required=True)
    add_export_command(commands)
    add_plan_command(commands)
    options = parser.parse_args(arguments)
    written = io.StringIO()
    return options.handler(options, Console(file=written, width=60)), written.getvalue()


def test_an_export_is_saved_and_its_costs_are_shown(tmp_path: Path) -> None:
    code, text = run("export", "tests.exporters.export_tasks:tiny_task", "-o", str(tmp_path / "out"))
    assert code == 0
    for line in ("trained parameters", "511 of 511 (100%)", "update", "compressed", "planned arena", "gradient error"):
        assert line in text
    assert "idle floor" in text
    engine = load_engine(tmp_path / "out")
    assert engine.manifest.micro_batch == 4
    engine.close()


def test_an_export_explains_its_layers(tmp_path: Path) -> None:
    code, text = run("export", "tests.exporters.export_tasks:tiny_task", "--explain", "-o", str(tmp_path / "out"))
    assert code == 0
    assert "shares of the step time are estimates" in text
    assert "loss, metrics, masks" in text


def test_an_export_as_json_has_the_same_numbers_and_its_layers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task = "tests.exporters.export_tasks:tiny_task"
    code, text = run("export", task, "--explain", "--json", "-o", str(tmp_path / "out"))
    assert (code, text) == (0, ""), "progress is not among the JSON"
    result = json.loads(capsys.readouterr().out)
    assert (result["trained_parameters"], result["parameters"], result["budget_bytes"]) == (511, 511, None)
    assert result["update_bytes"] == 4 * 511
    assert sum(layer["share"] for layer in result["layers"]) == pytest.approx(1)


def test_a_budget_that_cannot_be_read_is_refused_before_anything_is_imported(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="write it like 400KB"):
        run("export", "no_such_module:task", "--budget", "plenty", "-o", str(tmp_path))


def test_a_missing_task_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(FtteError, match="no_such_module"):
        run("export", "no_such_module:task", "-o", str(tmp_path))
    assert not list(tmp_path.iterdir())


def test_plans_are_printed_saved_and_drawn_and_can_be_exported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "plans")
    command = [
        "plan",
        "tests.exporters.export_tasks:wide_task",
        "--budgets",
        "1MB,3MB,9MB",
        "--data",
        "tests.exporters.export_tasks:few_samples",
    ]
    command += ["--selector", "contribution", "--steps", "3", "--processes", "1", "-o", out]
    code, text = run(*command)
    assert code == 0
    for line in ("1 Linear", "budget 1.00 MB", "measured memory", "samples a step", "expected gain", "3 of 3"):
        assert line in text
    assert (tmp_path / "plans" / "plans.png").read_bytes().startswith(b"\x89PNG")
    summary = json.loads((tmp_path / "plans" / "plans.json").read_text())
    assert [tier["measured_bytes"] <= tier["budget_bytes"] for tier in summary["tiers"]] == [True] * 3
    state = (tmp_path / "plans" / "search.json").read_bytes()
    capsys.readouterr()
    assert run(*command, "--json") == (0, "")
    result = json.loads(capsys.readouterr().out)
    assert [tier["measured_bytes"] for tier in result["tiers"]] == [tier["measured_bytes"] for tier in summary["tiers"]]
    assert all(f"{layer['name']} {layer['kind']}" in text for layer in result["layers"])
    assert "…" not in text, "nothing is cut, however narrow a pipe is taken to be"
    assert (tmp_path / "plans" / "search.json").read_bytes() == state  # nothing was worked out again

    plan = tmp_path / "plans" / summary["tiers"][0]["plan"]
    program = str(tmp_path / "program")
    assert (
        run("export", "tests.exporters.export_tasks:wide_task", "--plan", str(plan), "--budget", "1MB", "-o", program)[
            0
        ]
        == 0
    )
    engine = load_engine(program)
    assert engine.manifest.memory.measured_bytes <= 1_000_000
    engine.close()
