"""A demo replaces what a demo made, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from coordinator.cli.demo_folder import MARK, clear_demo_folder
from coordinator.errors import CoordinatorError

REMEDY = "name another folder with --out"


def clear(folder: Path) -> None:
    clear_demo_folder(folder, folders=("state", "devices"), files=("summary.json",), remedy=REMEDY)


@pytest.mark.parametrize("name", ["state/state.sqlite", "devices/measurements.csv", "summary.json"])
def test_what_no_demo_made_is_left_alone_and_the_demo_refuses(tmp_path: Path, name: str) -> None:
    mine = tmp_path / name
    mine.parent.mkdir(exist_ok=True)
    mine.write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(CoordinatorError, match=f"{name.partition('/')[0]} was not made by a demo.*{REMEDY}"):
        clear(tmp_path)
    assert mine.read_text() == "mine"
    assert sorted(tmp_path.rglob("*")) == before


def test_what_a_demo_made_is_made_anew_and_other_files_beside_it_stay(tmp_path: Path) -> None:
    clear(tmp_path / "out")
    (tmp_path / "out" / "state" / "state.sqlite").write_text("of the first demo")
    (tmp_path / "out" / "summary.json").write_text("{}")
    (tmp_path / "out" / "notes.txt").write_text("mine")
    clear(tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out" / "state").iterdir()) == [MARK]
    assert (tmp_path / "out" / "notes.txt").read_text() == "mine"


def test_a_served_run_that_was_put_where_a_demo_was_stays(tmp_path: Path) -> None:
    clear(tmp_path)
    (tmp_path / "state" / MARK).unlink()
    (tmp_path / "state" / "run.key").write_text("mine")
    with pytest.raises(CoordinatorError, match="state was not made by a demo"):
        clear(tmp_path)
    assert (tmp_path / "state" / "run.key").exists()


def test_a_link_to_another_folder_is_not_followed(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    clear(elsewhere)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "state").symlink_to(elsewhere / "state")
    with pytest.raises(CoordinatorError, match="was not made by a demo"):
        clear(tmp_path / "out")
    assert (elsewhere / "state" / MARK).exists()
