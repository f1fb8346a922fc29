"""What ``ftte`` says without a command fits where it is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from coordinator.cli.first_steps import first_steps
from coordinator.cli.main import GROUPS, main

RUN = '[run]\nname = "a"\ntask = "a:b"\n[budgets]\nall = "1MB"\n'


def test_a_newcomer_is_shown_the_demo(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FTTE_ADMIN", raising=False)
    assert main([]) == 0
    words = capsys.readouterr().out
    assert words.startswith("What to do first:\n  ftte demo")
    assert "ftte new" in words


def test_where_there_is_a_run_file_it_is_to_be_served(tmp_path: Path) -> None:
    (tmp_path / "a-scenario.toml").write_text('[simulation]\nrun = "run.toml"\n')
    (tmp_path / "broken.toml").write_text("[")
    (tmp_path / "run.toml").write_text(RUN)
    words = first_steps(tmp_path)
    assert "ftte doctor run.toml" in words
    assert "ftte run run.toml" in words


def test_where_a_run_is_served_it_is_to_be_looked_at(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(RUN)
    (tmp_path / ".ftte").mkdir()
    (tmp_path / ".ftte" / "admin.token").write_text("secret")
    assert first_steps(tmp_path).startswith("What to do next:\n  ftte dashboard")


def test_every_command_that_is_suggested_exists(tmp_path: Path) -> None:
    known = {name for names in GROUPS.values() for name in names}
    (tmp_path / "run.toml").write_text(RUN)
    lines = [*first_steps(tmp_path / "nowhere").splitlines()[1:], *first_steps(tmp_path).splitlines()[1:]]
    named = {line.split()[1] for line in lines}
    assert named - {"--help"} <= known
