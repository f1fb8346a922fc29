"""
What rewrites leave behind that costs something: views of views, of constants, and what every tile makes anew.

Equal operators are merged where they belong to different tiles of the batch, which all make the same of the weights, or
are views of an input, which are pointers. Others are not: the second copy of a convolution's columns, made for its
weights' gradient, is what spares keeping the first one in memory through the whole step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import fx

from ..lowering.marks import TILE, mark

__all__ = ["cut", "simplify"]

_aten = torch.ops.aten
_VIEWS = (_aten.view_copy.default, _aten.view.default, _aten._unsafe_view.default)
_FILLED = {_aten.ones.default: 1.0, _aten.zeros.default: 0.0}


def simplify(graph: fx.GraphModule) -> None:
    """Edit a lowered graph in place."""
    for node in list(graph.graph.nodes):
        if node.op != "call_function":
            continue
        if node.target in _FILLED:
            _fill(node, _FILLED[node.target])
        elif node.target in _VIEWS:
            _view(node)
    _merge(graph)
    graph.graph.eliminate_dead_code()
    graph.recompile()


def cut(graph: fx.GraphModule, outputs: slice, without: Sequence[int] = ()) -> fx.GraphModule:
    """
    A lowered graph of some of the outputs, without the inputs at the positions of ``without``.

    Args:
        graph: lowered; stays as it is.
        outputs: which of its outputs.
        without: positions of inputs that these outputs do not need.

    """
    result = fx.Graph()
    made: dict[fx.Node, fx.Node] = {}
    for node in graph.graph.nodes:
        if node.op == "output":
            kept: Any = node.args[0][outputs]
            result.output(tuple(made[n] for n in kept))
        else:
            made[node] = result.node_copy(node, lambda n: made[n])
    result.eliminate_dead_code()
    inputs = [n for n in result.nodes if n.op == "placeholder"]
    for position in without:
        result.erase_node(inputs[position])
    return fx.GraphModule(graph, result)


def _merge(graph: fx.GraphModule) -> None:
    """One operator for all tiles that apply it to the same, and one view of an input for all that read it."""
    first: dict[tuple[object, ...], fx.Node] = {}
    for node in graph.graph.nodes:
        if node.op != "call_function":
            continue
        source = node.args[0] if node.args else None
        of_input = node.target in _VIEWS and isinstance(source, fx.Node) and source.op == "placeholder"
        # Constants lie inside each delegate; with one for all tiles, that of the first would differ from the others.
        of_tile = mark(node, TILE) is not None and node.target is not _aten.full.default
        if of_input or of_tile:
            same = first.setdefault((node.target, repr(node.args), repr(node.kwargs)), node)
            if same is not node and (of_input or mark(same, TILE) not in (None, mark(node, TILE))):
                node.replace_all_uses_with(same)


def _fill(node: fx.Node, value: float) -> None:
    """One name for all constants."""
    node.args, node.target = (node.args[0], value), _aten.full.default
    node.kwargs = {**node.kwargs, "dtype": node.meta["val"].dtype}


def _view(node: fx.Node) -> None:
    node.target = _aten.view_copy.default
    source = node.args[0]
    assert isinstance(source, fx.Node)
    shape = list(node.meta["val"].shape)
    while source.op == "call_function" and source.target in _VIEWS and len(source.users) == 1:
        source = source.args[0]
        assert isinstance(source, fx.Node)
        node.replace_input_with(node.args[0], source)  # type: ignore[arg-type]
    if source.op == "call_function" and source.target is _aten.full.default:
        node.target, node.kwargs = source.target, source.kwargs
        node.args = (shape, source.args[1])
    elif list(source.meta["val"].shape) == shape and node.users:
        node.replace_all_uses_with(source)
    else:
        node.args = (source, shape)
