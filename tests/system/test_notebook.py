"""The notebook runs from its first cell to its last, and what it shows is what it made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nbformat
import pytest

NOTEBOOK = Path(__file__).parents[2] / "examples" / "first_run.ipynb"


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_the_notebook_that_is_kept_was_run_once_from_top_to_bottom() -> None:
    cells = code_cells(nbformat.read(NOTEBOOK, as_version=4))
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert not [output for cell in cells for output in cell.outputs if output.output_type == "error"]
    pictures = [output for cell in cells for output in cell.outputs if "image/png" in output.get("data", {})]
    assert len(pictures) == 2  # the plans, and the curves


@pytest.mark.full
def test_the_notebook_exports_plans_simulates_and_trains(tmp_path: Path) -> None:
    from nbclient import NotebookClient

    notebook = nbformat.read(NOTEBOOK, as_version=4)
    for cell in code_cells(notebook):
        cell.outputs, cell.execution_count = [], None
    NotebookClient(notebook, timeout=900, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()
    folder = tmp_path / "glyphs"
    assert (folder / "program" / "manifest.json").exists()
    assert (folder / "plans" / "plans.png").exists()
    assert json.loads((folder / "simulated.json").read_text())["versions"] == 24
    summary = json.loads((folder / "state" / "summary.json").read_text())
    assert (summary["versions"], len(summary["devices"])) == (24, 4)
    assert summary["accuracy"] > summary["initial_accuracy"] + 0.2
    assert f"accuracy {summary['accuracy']:.3f}" in code_cells(notebook)[-1].outputs[0].text
