"""Accuracy after fine-tuning against measured memory, a panel per backbone."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

__all__ = ["draw"]

_COLOURS = {
    "contribution": "#c0392b",
    "fisher": "#2471a3",
    "magnitude": "#7d3c98",
    "sensitivity": "#138d75",
    "last-layers": "#d68910",
    "random": "#7f8c8d",
    "shuffled": "#bdc3c7",
}


def draw(report: dict[str, Any], path: Path) -> None:
    """Draw what the benchmark has so far."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = list(report["backbones"])
    figure = Figure(figsize=(6.4 * len(names), 5.2), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(names), squeeze=False)[0]
    for axes, name in zip(panels, names, strict=True):
        result = report["backbones"][name]
        axes.axhline(100 * result["untouched"], color="black", linestyle=":", linewidth=1)
        axes.annotate(
            "untouched backbone",
            (0.99, 100 * result["untouched"]),
            (0, 3),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            ha="right",
            fontsize=8,
        )
        for selector, colour in _COLOURS.items():
            cells = [cell for cell in result["cells"] if cell["selector"] == selector and cell["accuracy"]]
            if not cells:
                continue
            cells.sort(key=lambda cell: fmean(cell["memory_bytes"]))
            x = [fmean(cell["memory_bytes"]) / 1e6 for cell in cells]
            y = [100 * fmean(cell["accuracy"]) for cell in cells]
            spread = [100 * pstdev(cell["accuracy"]) for cell in cells]
            control = selector in ("random", "shuffled")
            axes.errorbar(x, y, spread, color=colour, label=selector, marker="o", markersize=4, capsize=2,
                          linestyle="--" if control else "-", linewidth=1.4)  # fmt: skip
        for bound in result["reach"]:
            needed = bound["fraction"] * result["full"]["memory_bytes"] / 1e6
            reached = 100 * fmean(bound["accuracy"])
            everything = "everything from the first layer on that is reached with so much"
            label = "_" if bound is not result["reach"][0] else everything
            axes.plot(needed, reached, "_", color="black", markersize=16, label=label)
        full = result["full"]
        if full["accuracy"]:
            reached = 100 * fmean(full["accuracy"])
            axes.plot(full["memory_bytes"] / 1e6, reached, "*", color="black", markersize=13, label="everything")
            axes.plot(full["memory_bytes_at_1"] / 1e6, reached, "D", color="white", markeredgecolor="black",
                      label="everything, one sample at a time")  # fmt: skip
        axes.set_xscale("log")
        axes.set_xlabel("measured memory of a training step, MB")
        axes.set_ylabel("accuracy in the shifted domain, %")
        axes.set_title(f"{name}, {result['flops'] / 1e6:.1f} MFLOP, {report['micro_batch']} samples a step", loc="left")
        axes.grid(alpha=0.25, which="both")
        axes.legend(fontsize=8, loc="lower right")
    figure.savefig(path)
