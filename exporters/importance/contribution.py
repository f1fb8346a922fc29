"""
Contribution analysis: what a layer adds is measured by training it.

As in "On-Device Training Under 256KB Memory" (Lin et al. 2022, MCUNetV3): short fine-tunings on proxy data give the
gain of the biases of the last k layers for every depth k, and of each layer's weights at each ratio alone. The last
layer is trained in all of them, since without it a net that meets new classes learns nothing; its own gain is taken
over the untouched net. A plan is expected to gain the sum. Gains overlap, so sums promise too much: the best plans
are fine-tuned before one is taken.

Gains of deeper biases and of more channels are made non-decreasing (isotonic regression): more parameters in the same
place lose by noise alone. The plans that cheaper selectors would take are fine-tuned beside them: short fine-tunings
tell layers apart that are trained alone, but say little of what many of them do together.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from sklearn.isotonic import IsotonicRegression

from ..space import BIAS, FROZEN, LEVELS, Levels, Space
from . import fisher, last_layers, magnitude, sensitivity
from .evidence import Evidence
from .finetune import FineTuning, TensorSamples, fine_tune
from .scores import Scores

__all__ = ["merits", "scores"]

# Depths of bias training that are measured; between them gains are interpolated.
_DEPTHS = 16
_FINALISTS = 6

_Context = tuple[Space, TensorSamples, TensorSamples, FineTuning]


def scores(evidence: Evidence) -> Scores:
    """Gains of the task's first metric (or of the loss, where it has none) on the judged third of the proxy data."""
    space = evidence.space
    head = len(space) - 1
    base = space.only(head, space.layers[head].levels[-1])
    nothing: Levels = (FROZEN,) * len(space)
    depths = sorted({int(d) for d in np.linspace(1, head, min(_DEPTHS, head)).round()}) if head else []
    with_biases = {depth: _biases(space, depth, base) for depth in depths}
    alone = {
        (i, level): space.only(i, level, nothing if i == head else base)
        for i, layer in enumerate(space.layers)
        for level in layer.levels
        if level != FROZEN
    }
    tried = list(dict.fromkeys([nothing, base, *with_biases.values(), *alone.values()]))
    merit = dict(zip(tried, merits(evidence, "contribution", tried), strict=True))

    known = [0, *depths]
    by_depth = [0.0, *(merit[with_biases[d]] - merit[base] for d in depths)]
    reached = np.interp(np.arange(head + 1), known, _rising(by_depth))
    gains = np.zeros((len(space), len(LEVELS)))
    for i, layer in enumerate(space.layers):
        if i == head:
            trained = [level for level in layer.levels if level != FROZEN]
            found = _rising([merit[alone[i, level]] - merit[nothing] for level in trained])
        else:
            bias = float(reached[head - i] - reached[head - i - 1])
            # What training weights adds on top of the biases that are trained with them.
            own = merit[alone[i, BIAS]] - merit[base] if BIAS in layer.levels else 0.0
            trained = [level for level in layer.levels if level > BIAS]
            found = [bias + g - own for g in _rising([merit[alone[i, level]] - merit[base] for level in trained])]
            if BIAS in layer.levels:
                trained, found = [BIAS, *trained], [bias, *found]
        by_level = dict(zip(trained, found, strict=True))
        for level in range(1, len(LEVELS)):
            gains[i, level] = by_level.get(level, gains[i, level - 1])
    unit = next(iter(space.task.metrics), "loss")
    rivals = tuple(selector.scores(evidence) for selector in (sensitivity, fisher, magnitude, last_layers))
    return Scores(gains, unit, finalists=_FINALISTS, rivals=rivals)


def merits(evidence: Evidence, stage: str, plans: list[Levels], longer: int = 1) -> list[float]:
    """
    What short fine-tunings of ``plans`` reach on the judged samples; ``longer`` multiplies their steps.

    Args:
        evidence: samples, workers, journal.
        stage: what to call it in the journal and in messages.
        plans: one level per layer each.
        longer: times as many steps as a single layer's fine-tuning.

    Returns:
        The merit of each: the task's first metric, or minus the loss where it has none.

    """
    train, test = evidence.split
    settings = dataclasses.replace(evidence.fine_tuning, seed=evidence.seed, steps=evidence.fine_tuning.steps * longer)
    context: _Context = (evidence.space, train, test, settings)
    keys = [f"{settings.steps}:{''.join(map(str, levels))}" for levels in plans]
    found: list[float] = evidence.each(stage, _merit, context, plans, keys)
    return found


def _merit(context: _Context, levels: Levels) -> float:
    space, train, test, settings = context
    subset = space.subset(levels) if any(levels) else None
    return fine_tune(space.task, subset, train, test, settings).merit


def _biases(space: Space, depth: int, base: Levels) -> Levels:
    """The last layer whole, and the biases of ``depth`` layers before it."""
    first = len(space) - 1 - depth
    return tuple(
        BIAS if i >= first and level == FROZEN and BIAS in space.layers[i].levels else level
        for i, level in enumerate(base)
    )


def _rising(values: list[float]) -> list[float]:
    if len(values) < 2:
        return values
    fitted = IsotonicRegression().fit_transform(np.arange(len(values)), np.array(values))
    return [float(v) for v in fitted]
