"""
Train the last layers: the nearer to the output, the sooner a layer is trained.

The baseline that better selectors must beat. Its subsets are nested, and what lies below the first trained
layer needs no backward pass.
"""

from __future__ import annotations

import torch
from torch import nn

from mobile_sdk.layout import Subset

from ..task import Task

__all__ = ["layers", "subsets"]


def layers(task: Task) -> list[list[str]]:
    """Parameter names of each module that owns some, in the order in which the modules run."""
    trainable = set(task.parameter_names())
    ran: dict[str, list[str]] = {}
    handles = []
    for path, module in task.model.named_modules():
        own = [f"{path}.{n}" if path else n for n, _ in module.named_parameters(recurse=False)]
        if own := [n for n in own if n in trainable]:

            def note(module: nn.Module, args: object, path: str = path, own: list[str] = own) -> None:
                ran.setdefault(path, own)

            handles.append(module.register_forward_pre_hook(note))
    try:
        with torch.no_grad():
            task.model(task.example_x[:1])
    finally:
        for handle in handles:
            handle.remove()
    return list(ran.values())


def subsets(task: Task) -> list[Subset]:
    """The last layer, the last two, and so on to all of them."""
    order = layers(task)
    return [Subset.whole(task.layout, [n for layer in order[-k:] for n in layer]) for k in range(1, len(order) + 1)]
