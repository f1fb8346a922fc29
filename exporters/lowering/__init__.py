"""
The training lowering: a traced step in, the same function in forms that are fast and right on a device out.

Each module of this package holds the rewrites of one family of operators and says what they replace and why.
:func:`lower` walks the traced graph and applies them; an operator without a rewrite is refused, with the name
of the module of the model that it comes from.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch._decomp import core_aten_decompositions
from torch.fx.experimental.proxy_tensor import make_fx

from ..errors import ExportError
from . import activations, convolution, elementwise, losses, normalisation, pooling, portable, products, shapes
from .errors import Unsupported
from .registry import REWRITES
from .values import Value

__all__ = ["MODULE", "decompositions", "lower"]

FAMILIES = (activations, convolution, elementwise, losses, normalisation, pooling, portable, products, shapes)

# Key in ``node.meta["custom"]``: the model's module that an operator of the traced graph comes from.
MODULE = "module"

_BATCH_NORM = "the BatchNorm module in eval mode (its running statistics are then frozen weights), or GroupNorm"
_INSTEAD = {
    "native_dropout": "Dropout with p=0, or the module in eval mode",
    "native_batch_norm": _BATCH_NORM,
    "_native_batch_norm_legit": _BATCH_NORM,
    "_native_batch_norm_legit_functional": _BATCH_NORM,
}


def decompositions() -> dict[Any, Any]:
    """What the tracer should take apart: ATen's core decompositions, except where a rewrite is better."""
    table: dict[Any, Any] = core_aten_decompositions()
    return {op: rule for op, rule in table.items() if op not in REWRITES}


def lower(graph: fx.GraphModule, inputs: Sequence[Tensor]) -> fx.GraphModule:
    """
    Rewrite a traced step.

    Args:
        graph: traced with :func:`decompositions`, its nodes tagged with :data:`MODULE`.
        inputs: example inputs of the graph.

    Returns:
        A graph of the same inputs and outputs, contiguous, in the natural axis order.

    Raises:
        ExportError: if an operator has no rewrite, with its name and its module's.

    """

    def run(*tensors: Tensor) -> tuple[Tensor, ...]:
        results = _Rewriter(graph).run(*[Value(t) for t in tensors])
        return tuple(r.natural() for r in results)

    lowered = make_fx(run, tracing_mode="fake")(*inputs)
    lowered.graph.eliminate_dead_code()
    lowered.recompile()
    return lowered


class _Rewriter(fx.Interpreter):
    """Runs the traced graph on values instead of tensors."""

    def run_node(self, n: fx.Node) -> Any:
        if n.op != "call_function" or n.target is operator.getitem:
            result = super().run_node(n)
            return Value(result) if n.op == "get_attr" else result
        rewrite = REWRITES.get(n.target) if isinstance(n.target, torch._ops.OpOverload) else None
        if rewrite is None:
            raise ExportError(_refusal(n))
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        try:
            return rewrite(*args, **kwargs)
        except Unsupported as reason:
            raise ExportError(f"{_where(n)}: {reason}") from reason


def _where(node: fx.Node) -> str:
    name = node.meta.get("custom", {}).get(MODULE, "")
    return f"module {name!r}" if name else "the loss or a metric"


def _refusal(node: fx.Node) -> str:
    name = str(node.target).removeprefix("aten.")
    instead = _INSTEAD.get(name.split(".")[0], "another module, or add a rewrite to exporters.lowering")
    return f"{_where(node)} needs the operator {name}, which cannot be trained on a device; use {instead}"
