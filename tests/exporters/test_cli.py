"""``ftte export`` writes a program that a device can load, and says what it costs."""

from __future__ import annotations

import argparse
import io

import pytest
from rich.console import Console

from exporters import ExportError
from exporters.cli import add_export_command
from mobile_sdk import load_engine
from mobile_sdk.errors import FtteError


def run(*arguments: str) -> tuple[int, str]:
    parser = argparse.ArgumentParser()
    add_export_command(parser.add_subparsers(required=True))
    options = parser.parse_args(["export", *arguments])
    console = Console(file=io.StringIO(), width=120)
    return options.handler(options, console), console.file.getvalue()


def test_an_export_is_saved_and_its_costs_are_shown(tmp_path):
    code, text = run("export_tasks:tiny_task", "-o", str(tmp_path / "out"))
    assert code == 0
    for line in ("trained parameters", "511 of 511 (100%)", "update", "compressed", "planned arena", "gradient error"):
        assert line in text
    engine = load_engine(tmp_path / "out")
    assert engine.manifest.micro_batch == 4
    engine.close()


def test_a_budget_that_cannot_be_read_is_refused_before_anything_is_imported(tmp_path):
    with pytest.raises(ExportError, match="write it like 400KB"):
        run("no_such_module:task", "--budget", "plenty", "-o", str(tmp_path))


def test_a_missing_task_is_one_sentence(tmp_path):
    with pytest.raises(FtteError, match="no_such_module"):
        run("no_such_module:task", "-o", str(tmp_path))
    assert not list(tmp_path.iterdir())
