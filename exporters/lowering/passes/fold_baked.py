"""
Batch normalisation that is constant, folded into the constant convolution before it.

Replaces ``native_batch_norm`` with frozen statistics after a ``convolution``, where all weights of both are inside the
program, by other weights of the convolution: ``w * s`` and ``(b - mean) * s + shift``, where ``s`` is
``scale / sqrt(variance + eps)``. It spares two passes over the activations.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor, fx

__all__ = ["fold"]

_aten = torch.ops.aten
_CONVOLUTION = _aten.convolution.default
_NORM = _aten.native_batch_norm.default


def fold(graph: fx.GraphModule) -> None:
    """Fold what can be folded, in place."""
    for norm in list(graph.graph.nodes):
        if norm.op != "call_function" or norm.target is not _NORM or norm.args[5]:
            continue
        convolution = norm.args[0]
        if not isinstance(convolution, fx.Node) or convolution.target is not _CONVOLUTION:
            continue
        constants = [_constant(graph, a) for a in (*convolution.args[1:3], *norm.args[1:5])]
        readers = [user for user in norm.users if user.target is operator.getitem]
        alone = list(convolution.users) == [norm] and all(user.args[1] == 0 for user in readers)
        if not alone or any(c is _UNKNOWN for c in constants):
            continue
        w, b, scale, shift, mean, variance = constants
        factor = torch.rsqrt(variance + norm.args[7])
        factor = factor if scale is None else factor * scale
        bias = (0.0 if b is None else b) - mean
        bias = bias * factor + (0.0 if shift is None else shift)
        with graph.graph.inserting_before(convolution):
            convolution.update_arg(1, _attribute(graph, w * factor.reshape(-1, *[1] * (w.dim() - 1))))
            convolution.update_arg(2, _attribute(graph, bias))
        for reader in readers:
            reader.replace_all_uses_with(convolution)
            graph.graph.erase_node(reader)
        graph.graph.erase_node(norm)
    graph.graph.eliminate_dead_code()
    graph.recompile()


_UNKNOWN: Any = object()


def _constant(graph: fx.GraphModule, argument: Any) -> Any:
    """The tensor that a node stands for, :obj:`None` for none, and ``_UNKNOWN`` for what a step computes."""
    if argument is None:
        return None
    while isinstance(argument, fx.Node) and argument.target in (_aten.detach.default, _aten.clone.default):
        argument = argument.args[0]
    if isinstance(argument, fx.Node) and argument.op == "get_attr":
        return getattr(graph, str(argument.target))
    return _UNKNOWN


def _attribute(graph: fx.GraphModule, tensor: Tensor) -> fx.Node:
    name = f"_folded_{len(list(graph.buffers()))}"
    graph.register_buffer(name, tensor)
    return graph.graph.get_attr(name)
