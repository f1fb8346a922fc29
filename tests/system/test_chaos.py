"""Real processes under faults, for a minute; ``scripts/chaos.py`` goes on for as long as it is told to."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.chaos import main


@pytest.mark.full
@pytest.mark.parametrize("seed", ["3", "11"], ids=["float32", "int8"])
def test_nothing_is_lost_or_merged_twice_whatever_processes_links_and_disk_do(
    tmp_path: Path, planned: Path, capsys: pytest.CaptureFixture[str], seed: str
) -> None:
    code = main(["--minutes", "1", "--seed", seed, "--planned", str(planned), "--keep", str(tmp_path / "chaos")])
    assert code == 0, capsys.readouterr().out
