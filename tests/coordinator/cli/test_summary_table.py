"""The report at the end of a run is for people, and whole wherever it goes."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from coordinator.cli.summary_table import show_summary
from coordinator.reports.summary import summarise
from coordinator.simulation.virtual_time import run

from ..small_run import make_run

NAME = "device-6f1c4a02-in-the-kitchen-of-the-second-floor"


@pytest.mark.parametrize("width", [40, 200])
def test_no_name_is_cut_through_a_pipe(tmp_path: Path, width: int) -> None:
    async def main() -> None:
        small = make_run(tmp_path)
        state = small.state()
        device = state.device(NAME)
        device.tier, device.samples, device.updates = "small", 10, 1
        written = io.StringIO()
        show_summary(Console(file=written, width=width), {"ended": "it was enough", **summarise(state)})
        text = written.getvalue()
        assert "The run has ended: it was enough.\n" in text
        assert "0 versions from 0 updates in " in text
        (line,) = [line for line in text.splitlines() if NAME in line]
        assert line.split()[:4] == [NAME, "small", "10", "1"]
        assert [line.split()[:3] for line in text.splitlines() if line.startswith("large")] == [["large", "2.00", "KB"]]
        assert "…" not in text

    run(main())


def test_metrics_of_any_name_are_told_and_the_loss_where_there_is_no_other(tmp_path: Path) -> None:
    async def main() -> None:
        summary = {"ended": "it was enough", **summarise(make_run(tmp_path).state())}
        for metrics, words in (({"loss": 0.5, "mae": 2.0}, "mae"), ({"loss": 0.5}, "loss")):
            written = io.StringIO()
            now = {name: value / 4 for name, value in metrics.items()}
            show_summary(Console(file=written, width=200), summary | {"initial_metrics": metrics, "metrics": now})
            lines = [line for line in written.getvalue().splitlines() if " at version 0, " in line]
            assert lines == [f"{words} {metrics[words]:.4f} at version 0, {now[words]:.4f} at the end"]

    run(main())


@pytest.mark.parametrize("torch", [False, True])
def test_torch_in_a_devices_process_is_explained(tmp_path: Path, torch: bool) -> None:
    async def main() -> None:
        state = make_run(tmp_path).state()
        device = state.device("phone")
        device.peak_rss_bytes, device.torch_loaded = 500_000_000, torch
        written = io.StringIO()
        show_summary(Console(file=written, width=200), {"ended": "it was enough", **summarise(state)})
        text = written.getvalue()
        assert ("500.0 MB (torch!)" in text) == torch
        assert ("Keep the data in a module without it." in text) == torch

    run(main())
