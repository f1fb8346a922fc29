"""A whole service under twenty kills and stops; ``scripts/storm.py`` goes on for as long as it is told to."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.storm import main


@pytest.mark.full
def test_nothing_is_lost_or_merged_twice_whichever_process_of_a_service_is_killed_or_stopped(
    tmp_path: Path, planned: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["--faults", "20", "--seed", "5", "--planned", str(planned), "--keep", str(tmp_path / "storm")])
    assert code == 0, capsys.readouterr().out
