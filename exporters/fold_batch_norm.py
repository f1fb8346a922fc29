"""
Batch normalisation folded into the layer before it.

With its running statistics, a batch normalisation is a scale and a shift per channel, which the convolution before it
can take over: a program has fewer operators, and a plan fewer parameters that say the same. Where the scales themselves
are to be trained, leave it out.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from .errors import TaskError

__all__ = ["fold_batch_norm"]

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
_CLOSE = 1e-3


def fold_batch_norm(model: nn.Module, example_x: Tensor) -> nn.Module:
    """
    A copy of ``model`` in which convolutions and linear layers have taken over the batch normalisation behind them.

    Which ones belong together is seen by running the model. What follows no such layer stays as it is.

    Args:
        model: its batch normalisation in eval mode: training mode follows the micro-batch, which cannot be folded.
        example_x: a batch that it takes.

    Raises:
        TaskError: if there is nothing to fold, or the copy does not compute what the model does, because a layer's
            result is also used without the normalisation.

    """
    folded = copy.deepcopy(model)
    training = next((n for n, m in folded.named_modules() if isinstance(m, _NORMS) and m.training), None)
    if training is not None:
        raise TaskError(f"batch normalisation {training!r} is in training mode; only a frozen one folds: call eval()")
    pairs = _pairs(folded, example_x)
    if not pairs:
        raise TaskError("no batch normalisation stands behind a convolution or linear layer; leave out the folding")
    for layer, norm in pairs:
        fuse = fuse_linear_bn_eval if isinstance(folded.get_submodule(layer), nn.Linear) else fuse_conv_bn_eval
        before = folded.get_submodule(layer)
        mode = before.training
        fused = fuse(before.eval(), folded.get_submodule(norm))  # type: ignore[type-var, arg-type]
        _replace(folded, layer, fused.train(mode))
        _replace(folded, norm, nn.Identity())
    _compare(model, folded, example_x)
    return folded


def _pairs(model: nn.Module, example_x: Tensor) -> list[tuple[str, str]]:
    """Names of layers and of the normalisation that reads what they give, where each runs once."""
    gave: dict[int, str] = {}
    runs: dict[str, int] = {}
    pairs: list[tuple[str, str]] = []
    kept: list[Tensor] = []  # an id is unique only while its tensor lives
    handles = []

    def after(name: str, norm: bool) -> object:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            runs[name] = runs.get(name, 0) + 1
            kept.extend([*inputs, output])
            if norm and id(inputs[0]) in gave:
                pairs.append((gave[id(inputs[0])], name))
            elif not norm:
                gave[id(output)] = name

        return hook

    for name, module in model.named_modules():
        if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Linear, *_NORMS)):
            handles.append(module.register_forward_hook(after(name, isinstance(module, _NORMS))))  # type: ignore[arg-type]
    try:
        with torch.no_grad():
            model(example_x)
    finally:
        for handle in handles:
            handle.remove()
    return [(layer, norm) for layer, norm in pairs if runs[layer] == runs[norm] == 1]


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)


def _compare(model: nn.Module, folded: nn.Module, example_x: Tensor) -> None:
    with torch.no_grad():
        before, after = (copy.deepcopy(m).eval()(example_x) for m in (model, folded))
    error = float((after - before).norm() / before.norm().clamp_min(1e-12))
    if not error <= _CLOSE:
        raise TaskError(
            f"folding batch normalisation changes the output by {error:.1e} of its norm: a layer's result is also used "
            "without the normalisation behind it; leave out the folding"
        )
