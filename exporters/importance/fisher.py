"""
Fisher information: what the loss is sensitive to.

The score of a slice is the trace of its diagonal empirical Fisher matrix, the mean over samples of the squared
gradient of the sample's loss. It needs labels and one backward pass per sample, and no training. TinyTrain (Kwon et
al. 2024) ranks layers and channels by the same quantity taken at the activations.
"""

from __future__ import annotations

import contextlib

import numpy as np
import torch

from ..batches import call, value_of
from ..probe import evaluating
from .evidence import Evidence
from .scores import Scores, additive

__all__ = ["scores"]

_SAMPLES = 128


def scores(evidence: Evidence) -> Scores:
    """Means of squared gradients, over at most 128 samples."""
    space = evidence.space
    task = space.task
    x, y = evidence.example
    picked = torch.randperm(len(x), generator=torch.Generator().manual_seed(evidence.seed))[:_SAMPLES]
    parameters = dict(task.model.named_parameters())
    names = [n for layer in space.layers for n in (*layer.weights, *layer.biases)]
    flags = {n: parameters[n].requires_grad for n in names}
    squares = {n: torch.zeros_like(parameters[n], dtype=torch.float64) for n in names}
    try:
        for n in names:
            parameters[n].requires_grad_(True)
        for done, i in enumerate(picked.tolist()):
            evidence.progress("Fisher information", done, len(picked))
            # A sample by itself has no statistics: where samples see each other, the running ones are taken.
            with evaluating(task.model) if task.whole else contextlib.nullcontext():
                loss = task.loss(call(task.model, x[i : i + 1]), value_of(y[i : i + 1])).sum()
            for n, gradient in zip(names, torch.autograd.grad(loss, [parameters[n] for n in names]), strict=True):
                squares[n] += gradient.double() ** 2 / len(picked)
    finally:
        for n, flag in flags.items():
            parameters[n].requires_grad_(flag)
    evidence.progress("Fisher information", len(picked), len(picked))
    biases, weights = [], []
    for layer in space.layers:
        biases.append(sum(float(squares[n].sum()) for n in layer.biases))
        if layer.order:
            square = squares[layer.weights[0]]
            others = [i for i in range(square.ndim) if i != layer.axis]
            channels = (square.sum(others) if others else square).numpy()
            weights.append(list(np.cumsum(channels[list(layer.order)])))
        else:
            weights.append([sum(float(squares[n].sum()) for n in layer.weights)])
    return additive(space, biases, weights, "squared gradient")
