"""
Where a training step's work is: per layer what is trained, how it was lowered, and what it costs.

The runtime for devices attaches no event tracer of ExecuTorch's, so no layer can be timed by itself. A layer's share
is an **estimate**: each operator is charged for its arithmetic or for the bytes that it reads and writes, whichever
would take longer on a processor that computes 16 times in the time that it moves a byte.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter, defaultdict

import torch
from torch import Tensor, fx

from mobile_sdk.layout import Slice

from ..emit.partition import Delegated, partition
from ..emit.simplify import simplify
from ..emit.xnnpack import constant_of
from ..lowering import FORWARD, MODULE
from ..plan import Plan
from ..program.build import lowered
from ..program.step import Step
from ..task import Task

__all__ = ["ExplainedLayer", "explain"]

# Arithmetic that takes as long as moving a byte.
_PER_BYTE = 16.0
# A portable kernel handles one element at a time.
_PORTABLE = 20.0
_ELSEWHERE = "loss, metrics, masks"
_PRODUCTS = {
    torch.ops.aten.bmm.default: "product",
    torch.ops.ftte.dense.default: "dense",
    torch.ops.ftte.static_convolution.default: "baked convolution",
}


@dataclasses.dataclass(frozen=True)
class ExplainedLayer:
    """
    A module of the model in a training step.

    Args:
        name: its path.
        trained: ``whole``, ``n of m inputs``, ``frozen``, ``baked``, or nothing where it has no parameters.
        lowered: what it became: operators of the delegate by name and number, and how many stayed portable.
        weight_bytes: its parameters and buffers.
        moved_bytes: what its operators read and write in a step.
        share: estimated part of the step's time, 0 to 1.
        portable: part of that which portable kernels take, 0 to 1.

    """

    name: str
    trained: str
    lowered: str
    weight_bytes: int
    moved_bytes: int
    share: float
    portable: float = 0.0


def explain(task: Task, plan: Plan) -> list[ExplainedLayer]:
    """
    The layers of a plan's training step, in the order in which they run.

    Raises:
        ExportError: if the task cannot be lowered.

    """
    step = Step(task, plan)
    graph = lowered(step, "train_step")
    simplify(graph)
    operators: dict[str, Counter[str]] = defaultdict(Counter)
    moved: Counter[str] = Counter()
    costs: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for part in partition(graph.graph):
        for node in part.nodes if isinstance(part, Delegated) else [part]:
            if isinstance(part, fx.Node) and _is_view(node):
                continue
            module = node.meta.get("custom", {}).get(MODULE, "")
            kind = _kind(node) if isinstance(part, Delegated) else f"portable {_kind(node)}"
            operators[module][kind] += 1
            moved[module] += _bytes(node)
            costs[module][kind] += _cost(node, kind)
    cost = {module: sum(kinds.values()) for module, kinds in costs.items()}
    total = sum(cost.values()) or 1.0
    owned = {
        name: [p for p in task.layout if p.name.rpartition(".")[0] == ("" if name == FORWARD else name)] if name else []
        for name in operators
    }
    return [
        ExplainedLayer(
            name or _ELSEWHERE,
            _trained(step, [p.name for p in owned[name]]),
            _summary(operators[name], costs[name]),
            sum(4 * p.size for p in owned[name]),
            moved[name],
            cost[name] / total,
            sum(c for kind, c in costs[name].items() if kind.startswith("portable")) / (cost[name] or 1.0),
        )
        for name in operators
    ]


def _summary(operators: Counter[str], costs: dict[str, float]) -> str:
    """The costliest first."""
    kinds = sorted(costs, key=lambda kind: -costs[kind])
    more = ", ..." if len(kinds) > 4 else ""
    return ", ".join(f"{operators[kind]} {kind}" for kind in kinds[:4]) + more


def _trained(step: Step, names: list[str]) -> str:
    subset = step.plan.subset
    trained = [n for n in names if n in subset]
    if not names:
        return ""
    if not trained:
        return "baked" if any(n in step.plan.baked for n in names) else "frozen"
    part = next((subset[n] for n in trained if isinstance(subset[n], Slice)), None)
    if part is not None:
        size = next(step.task.layout[n].shape[part.axis] for n in trained if subset[n] is part)
        return f"{len(part.indices)} of {size} on axis {part.axis}"
    return "whole" if len(trained) == len([n for n in names if n in step.task.parameter_names()]) else "in part"


def _is_view(node: fx.Node) -> bool:
    return "view" in str(node.target)


def _kind(node: fx.Node) -> str:
    if node.target in _PRODUCTS:
        return _PRODUCTS[node.target]
    name = str(node.target).split(".")[1].removesuffix("_copy").strip("_")
    renamed = {"view": "reshape", "cat": "concatenation", "constant_pad_nd": "padding"}
    return renamed.get(name, name.replace("_", " "))


def _bytes(node: fx.Node) -> int:
    tensors = [node.meta["val"], *(n.meta["val"] for n in node.all_input_nodes if constant_of(n) is None)]
    return sum(t.numel() * t.element_size() for t in tensors if isinstance(t, Tensor))


def _cost(node: fx.Node, kind: str) -> float:
    """In bytes of memory traffic that would take as long."""
    if kind.startswith("portable"):
        return _PORTABLE * _bytes(node)
    return max(_arithmetic(node) / _PER_BYTE, _bytes(node))


def _arithmetic(node: fx.Node) -> float:
    """Multiplications and additions."""
    result = node.meta["val"].numel()
    if node.target not in _PRODUCTS:
        return float(result)
    weights = node.args[1]
    assert isinstance(weights, fx.Node)
    shape = weights.meta["val"].shape
    if node.target is torch.ops.ftte.static_convolution.default:
        return float(2 * result * math.prod(shape) / node.meta["val"].shape[3])
    return float(2 * result * (shape[-2] if node.target is torch.ops.aten.bmm.default else shape[-1]))
