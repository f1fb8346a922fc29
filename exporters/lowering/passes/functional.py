"""
A traced step without mutations, and with what depends on no input computed already.

Models write into slices, masks and views; a program's tensors are written once. Functionalisation turns each write
into a new tensor and lets every view of the old one see it, as autograd's graph does. What a step would compute anew
from numbers alone (positions, masks, the indices of a padding) becomes a constant, which rewrites can look into.
"""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx import traceback
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import _disable_current_modes

__all__ = ["fold_constants", "functional"]

_aten = torch.ops.aten
# Larger constants would make a program large; they are computed in every step instead.
_MOST_ELEMENTS = 1 << 16
# Equal numbers stay as they are written: the lowering leaves their broadcast open.
_FILLS = (
    _aten.full.default,
    _aten.zeros.default,
    _aten.ones.default,
    _aten.scalar_tensor.default,
    _aten.new_zeros.default,
    _aten.new_full.default,
    _aten.full_like.default,
    _aten.zeros_like.default,
    _aten.ones_like.default,
)
# Operators that make equal numbers for another tensor -> the number.
_ONE_NUMBER: dict[Any, Callable[[fx.Node], Any]] = {
    _aten.new_zeros.default: lambda node: 0,
    _aten.zeros_like.default: lambda node: 0,
    _aten.new_ones.default: lambda node: 1,
    _aten.ones_like.default: lambda node: 1,
    _aten.new_full.default: lambda node: node.args[2],
    _aten.full_like.default: lambda node: node.args[1],
}
_VIEWS = (
    _aten.alias.default,
    _aten.clone.default,
    _aten.detach.default,
    _aten.expand.default,
    _aten.lift_fresh_copy.default,
    _aten.permute.default,
    _aten.reshape.default,
    _aten.squeeze.dim,
    _aten.squeeze.dims,
    _aten.t.default,
    _aten.transpose.int,
    _aten.unsqueeze.default,
    _aten.view.default,
    _aten._unsafe_view.default,
)


def functional(
    graph: fx.GraphModule, inputs: Sequence[Tensor], decompositions: dict[Any, Any], keep: Callable[[fx.Node], None]
) -> fx.GraphModule:
    """
    The same step without operators that write to their arguments; ``graph`` itself if it has none.

    Args:
        graph: traced.
        inputs: example inputs.
        decompositions: what to take apart of what functionalisation brings in.
        keep: notes the module of the node that runs, for the operators that replace it.

    """
    if not any(_writes(node) for node in graph.graph.nodes):
        return graph

    class Noted(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            keep(n)
            return super().run_node(n)

    def run(*tensors: Tensor) -> Any:
        interpreter = Noted(graph)
        interpreter.extra_traceback = False
        return interpreter.run(*tensors)

    pure: Any = torch.func.functionalize(run, remove="mutations")
    with traceback.preserve_node_meta():
        tracer = make_fx(pure, decomposition_table=decompositions, tracing_mode="fake", _allow_non_fake_inputs=True)
        result = tracer(*inputs)
    for node in reversed(list(result.graph.nodes)):
        if _writes(node) and not node.users:
            result.graph.erase_node(node)  # what is written back to an input is nobody's business
    result.graph.eliminate_dead_code()
    _read_past_writes(result.graph)
    result.graph.eliminate_dead_code()
    result.recompile()
    return result


@dataclasses.dataclass(frozen=True)
class _Part:
    """Positions ``start`` to ``end`` of ``axis`` of a tensor."""

    source: fx.Node
    axis: int
    start: int
    end: int


def _read_past_writes(graph: fx.Graph) -> None:
    """
    Let a part of a tensor be read where it was written, or before writes to other parts.

    Functionalisation writes a chunk into its whole and cuts every other chunk out of that again, so that gates of a
    recurrent cell, each in place, would be put together and taken apart at every step.
    """
    known: dict[_Part, fx.Node] = {}
    for node in list(graph.nodes):
        part = _part(node)
        if part is None:
            continue
        found, written = _written(part)
        if written is not None:
            node.replace_all_uses_with(written)
        elif found != part:
            if found not in known:
                with graph.inserting_before(node):
                    known[found] = graph.call_function(
                        _aten.slice.Tensor, (found.source, found.axis, found.start, found.end)
                    )
                known[found].meta = dict(node.meta)
            node.replace_all_uses_with(known[found])


def _written(part: _Part) -> tuple[_Part, fx.Node | None]:
    """The part before writes to others, and what was written there, if it was written as a whole."""
    while part.source.target is _aten.slice_scatter.default:
        write = _slice(part.source, 1)
        if write is None or write.axis != part.axis:
            break
        if (write.start, write.end) == (part.start, part.end):
            source: Any = part.source.args[1]
            return part, source
        if part.start < write.end and write.start < part.end:
            break
        part = dataclasses.replace(part, source=write.source)
    return part, None


def _part(node: fx.Node) -> _Part | None:
    """What a node reads, if that is a part of another along one axis."""
    if node.target is _aten.slice.Tensor:
        return _slice(node, 0)
    split: Any = node.args[0] if node.target is operator.getitem else None
    if not isinstance(split, fx.Node) or split.target is not _aten.split.Tensor:
        return None
    arguments: tuple[Any, ...] = (*split.args, 0)
    source, size, axis = arguments[:3]
    shape = source.meta["val"].shape
    axis %= len(shape)
    number: Any = node.args[1]
    return _Part(source, axis, number * size, min((number + 1) * size, shape[axis]))


def _slice(node: fx.Node, skipped: int) -> _Part | None:
    """Of ``slice(x, axis, start, end, step)``, or with ``skipped`` arguments behind x; steps of 1 alone."""
    source: Any = node.args[0]
    given: list[Any] = list(node.args[1 + skipped :])
    axis, start, end, step = given + [0, None, None, 1][len(given) :]
    shape = source.meta["val"].shape
    if step != 1:
        return None
    begin, stop, _ = slice(start, end).indices(shape[axis])
    return _Part(source, axis % len(shape), begin, stop)


def _writes(node: fx.Node) -> bool:
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable


def fold_constants(graph: fx.GraphModule) -> None:
    """Compute what depends on no input, in place."""
    known: dict[fx.Node, Any] = {}
    with _disable_current_modes(), torch.no_grad():
        for node in graph.graph.nodes:
            if node.op == "get_attr":
                known[node] = getattr(graph, str(node.target))
            elif node.target in _ONE_NUMBER and node.meta["val"].dim() == 0:
                # Only dtype and device are asked of its argument.
                known[node] = torch.full((), _ONE_NUMBER[node.target](node), dtype=node.meta["val"].dtype)
            elif node.op == "call_function" and all(n in known for n in node.all_input_nodes) and _repeatable(node):
                args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda n: known[n])
                known[node] = node.target(*args, **kwargs)
    count = 0
    for node in list(graph.graph.nodes):
        value = known.get(node)
        if node.op != "call_function" or not isinstance(value, Tensor) or value.numel() > _MOST_ELEMENTS:
            continue
        if node.target in _FILLS or _stays(node, value) or all(user in known for user in node.users):
            continue
        with graph.graph.inserting_before(node):
            name, count = f"_computed_{count}", count + 1
            graph.register_buffer(name, value.contiguous().clone(), persistent=False)
            constant = graph.graph.get_attr(name)
        constant.meta = dict(node.meta)
        node.replace_all_uses_with(constant)
    graph.graph.eliminate_dead_code()
    graph.recompile()


def _repeatable(node: fx.Node) -> bool:
    target = node.target
    if target is operator.getitem:
        return True
    return isinstance(target, torch._ops.OpOverload) and torch.Tag.nondeterministic_seeded not in target.tags


def _stays(node: fx.Node, value: Tensor) -> bool:
    """Views of numbers cost nothing; only of what counts positions the elements are of interest."""
    if not value.is_floating_point():
        return False
    while node.op == "call_function" and node.target in (*_VIEWS, *_FILLS):
        if node.target in _FILLS or not node.all_input_nodes:
            return True
        node = node.all_input_nodes[0]
    return node.op == "get_attr"
