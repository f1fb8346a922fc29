"""One picture of all tiers: layers from the input to the output, a row per tier, as much filled as is trained."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mobile_sdk.sizes import format_bytes

from ..space import BIAS, FROZEN

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..search import Tiers

__all__ = ["draw"]

_FROZEN, _TRAINED, _BIAS, _INK = "#eceff1", "#1f6f8b", "#e9a23b", "#37474f"
_MOST_NAMES = 80  # beyond, names would overlap


def draw(tiers: Tiers, path: Path) -> None:
    """Draw ``tiers`` to a PNG or SVG file."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # matplotlib takes a second to import
    from matplotlib.figure import Figure

    space, rows = tiers.space, tiers.tiers
    names = [f"{layer.name or space.task.name}  {layer.kind}" for layer in space.layers]
    longest = max(len(name) for name in names)
    width = min(5.0 + 0.34 * len(space), 24.0)
    height = 2.4 + 0.62 * len(rows) + 0.075 * longest
    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    above, grid = figure.subplots(2, 1, sharex=True, height_ratios=[1.1, 0.62 * len(rows)])
    _gains(above, tiers)
    _grid(grid, tiers)
    if len(space) <= _MOST_NAMES:
        grid.set_xticks(range(len(space)), names, rotation=90, fontsize=8, color=_INK)
    grid.set_xlabel("layers, from the input to the output", color=_INK)
    above.set_title(
        f"{space.task.name}: what each memory tier trains ({tiers.mode})", loc="left", color=_INK, fontweight="bold"
    )
    _legend(figure)
    figure.savefig(path)


def _gains(axes: Axes, tiers: Tiers) -> None:
    """Above the grid: what training a whole layer is expected to add."""
    gains = tiers.scores.gains.max(axis=1)
    axes.bar(range(len(gains)), gains, width=0.72, color="#90a4ae")
    axes.axhline(0, color=_INK, linewidth=0.6)
    axes.set_ylabel(f"gain,\n{tiers.scores.unit}", color=_INK, fontsize=8)
    axes.tick_params(labelsize=7, colors=_INK, bottom=False)
    for side in ("top", "right", "bottom"):
        axes.spines[side].set_visible(False)


def _grid(axes: Axes, tiers: Tiers) -> None:
    from matplotlib.patches import Rectangle

    rows = list(reversed(tiers.tiers))  # the smallest device at the bottom, as a foundation
    for y, tier in enumerate(reversed(rows)):
        shares = tiers.space.shares(tier.plan.subset)
        for x, (level, share) in enumerate(zip(tier.levels, shares, strict=True)):
            left, bottom, wide, high = x - 0.42, y - 0.38, 0.84, 0.76
            axes.add_patch(Rectangle((left, bottom), wide, high, color=_FROZEN, linewidth=0))
            if level == BIAS:
                axes.add_patch(Rectangle((left, bottom), wide, 0.12, color=_BIAS, linewidth=0))
            elif level > FROZEN:
                filled = high * max(share, 0.16)
                axes.add_patch(Rectangle((left, bottom), wide, filled, color=_TRAINED, linewidth=0))
    axes.set_xlim(-0.6, len(tiers.space) - 0.4)
    axes.set_ylim(-0.5, len(rows) - 0.5)
    labels = [
        f"budget {format_bytes(tier.budget)}\n{format_bytes(4 * tier.plan.subset.size)} update" for tier in tiers.tiers
    ]
    axes.set_yticks(range(len(rows)), labels, fontsize=9, color=_INK)
    axes.tick_params(length=0)
    right = axes.secondary_yaxis("right")
    needs = [f"measured {format_bytes(t.needs)}\n{t.plan.micro_batch} samples a step" for t in tiers.tiers]
    right.set_yticks(range(len(rows)), needs, fontsize=8, color=_INK)
    right.tick_params(length=0)
    for axis in (axes, right):
        for spine in axis.spines.values():
            spine.set_visible(False)


def _legend(figure: object) -> None:
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    assert isinstance(figure, Figure)
    patches = [
        Patch(color=_TRAINED, label="weights: filled as far as input channels are trained"),
        Patch(color=_BIAS, label="biases only"),
        Patch(color=_FROZEN, label="frozen"),
    ]
    figure.legend(handles=patches, loc="outside lower center", ncols=3, frameon=False, fontsize=8, labelcolor=_INK)
