"""
Gradients of slices, without the rest.

A plan may train some channels of a weight. Autograd gives the gradient of the whole weight, of which the step keeps a
part; here the choice moves to the operands of the product that makes it. ``index_select(grad.T @ x)`` over inputs
becomes ``grad.T @ index_select(x)``, and a convolution's weight gradient unrolls the chosen channels alone. Where
nothing else reads the input in the backward pass, the choice is made in the forward pass, so that only those channels
are kept.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx

__all__ = ["narrow"]

_aten = torch.ops.aten
_SELECT = _aten.index_select.default
_BACKWARD = _aten.convolution_backward.default
_ALIASES = (_aten.detach.default, _aten.alias.default, _aten.clone.default, _aten.lift_fresh_copy.default)
_TURNED = (_aten.t.default,)


def narrow(graph: fx.GraphModule) -> None:
    """Move every constant choice of a gradient's channels to the operands, in place."""
    for node in list(graph.graph.nodes):
        if node.target is _SELECT and _is_constant(node.args[2]):
            found = _narrowed(graph.graph, node, *node.args)
            if found is not None:
                node.replace_all_uses_with(found)
    graph.graph.eliminate_dead_code()
    graph.recompile()


def _is_constant(argument: Any) -> bool:
    while isinstance(argument, fx.Node) and argument.target in _ALIASES:
        argument = argument.args[0]
    return isinstance(argument, fx.Node) and argument.op == "get_attr"


def _narrowed(graph: fx.Graph, before: fx.Node, source: Any, axis: Any, index: Any) -> fx.Node | None:
    """The channels ``index`` of ``axis`` of ``source``, made from narrower operands; new nodes go before ``before``."""
    if source.target in _ALIASES:
        return _narrowed(graph, before, source.args[0], axis, index)
    if source.target in _TURNED:
        inner = _narrowed(graph, before, source.args[0], 1 - axis, index)
        return inner and _made(graph, before, source.target, (inner,), source)
    if source.target is _aten.mm.default:
        operands = list(source.args)
        # Forward activations of a linear layer are small: they are chosen from where they are multiplied.
        operands[axis] = _made(graph, before, _SELECT, (operands[axis], axis, index), source)
        return _made(graph, before, _aten.mm.default, tuple(operands), source)
    if source.target is operator.getitem and source.args[1] == 1 and source.args[0].target is _BACKWARD:
        return _narrowed_convolution(graph, before, source.args[0], axis, index)
    return None


def _narrowed_convolution(
    graph: fx.Graph, before: fx.Node, whole: fx.Node, axis: int, index: fx.Node
) -> fx.Node | None:
    grad, x, w, _, *geometry, groups, mask = whole.args
    if axis > 1:
        return None
    depthwise = groups != 1
    if axis == 0:
        grad = _made(graph, before, _SELECT, (grad, 1, index), whole)
    if axis == 1 or depthwise:
        chosen = _kept_for(x, whole)
        if chosen is None:
            x = _made(graph, before, _SELECT, (x, 1, index), whole)
        else:
            x = _early(graph, chosen, index, whole)
    w = _made(graph, before, _SELECT, (w, axis, index), whole)
    count = _length(index)
    arguments = (grad, x, w, None, *geometry, count if depthwise else 1, [False, True, False])
    part = _made(graph, before, _BACKWARD, arguments, whole)
    whole.update_arg(len(whole.args) - 1, [mask[0], False, mask[2]])  # type: ignore[index]
    return _made(graph, before, operator.getitem, (part, 1), whole)


def _kept_for(x: Any, reader: fx.Node) -> fx.Node | None:
    """What computes ``x``, unless it is an input, or something reads it after ``reader``, in the backward pass."""
    while x.target in _ALIASES:
        x = x.args[0]
    if x.op != "call_function":
        return None
    later = {reader}
    node = reader.next
    while node.op != "root":
        later.add(node)
        node = node.next
    waiting = [x]
    while waiting:
        for user in waiting.pop().users:
            if user.target in _ALIASES:
                waiting.append(user)
            elif user in later and user is not reader:
                return None
    return x if isinstance(x, fx.Node) else None


def _position(index: fx.Node) -> list[fx.Node]:
    """The chain that makes a constant index, from its attribute on."""
    chain = [index]
    while chain[-1].target in _ALIASES:
        chain.append(chain[-1].args[0])  # type: ignore[arg-type]
    return chain[::-1]


def _length(index: fx.Node) -> int:
    first = _position(index)[0]
    return len(getattr(index.graph.owning_module, str(first.target)))


def _early(graph: fx.Graph, x: fx.Node, index: fx.Node, like: fx.Node) -> fx.Node:
    """``x``'s channels, chosen as soon as it is computed."""
    with graph.inserting_after(x):
        attribute = graph.get_attr(str(_position(index)[0].target))
    with graph.inserting_after(attribute):
        node = graph.call_function(_SELECT, (x, 1, attribute))
    return _described(node, like)


def _made(graph: fx.Graph, before: fx.Node, target: Any, arguments: tuple[Any, ...], like: fx.Node) -> fx.Node:
    with graph.inserting_before(before):
        node = graph.call_function(target, arguments)
    return _described(node, like)


def _described(node: fx.Node, like: fx.Node) -> fx.Node:
    """As a part of the module that ``like`` belongs to."""
    node.meta = {k: v for k, v in like.meta.items() if k != "val"}
    return node
