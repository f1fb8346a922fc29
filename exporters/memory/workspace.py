"""
What XNNPACK will allocate for a delegate: its memory planner, replayed on the delegate's graph.

Every tensor inside the delegate lives from the operator that makes it to the last that reads it; an elementwise
operator or reshape takes the memory of an operand that nobody reads later; a product packs its second operand first.
This follows ``memory-planner.c``, ``runtime.c`` and ``batch-matrix-multiply-nc.c`` of the XNNPACK that ExecuTorch 1.5.1
is built with.
"""

from __future__ import annotations

import math

from ..emit.xnnpack import XnnpackGraph, XnnpackOperator
from .arena import Block, arena

__all__ = ["packed", "workspace"]

_ALIGNMENT = 64
_EXTRA = 16  # XNN_EXTRA_BYTES
# Columns of a packed operand: kernels take them by 16 (AVX, AVX-512) or 8 (NEON).
_TILE = 16
_IN_PLACE = {
    "XNNStaticReshape",
    "XNNSoftmax",
    "XNNNegate", "XNNExp", "XNNLog", "XNNSquareRoot", "XNNReciprocalSquareRoot", "XNNAbs", "XNNSigmoid", "XNNTanh",
    "XNNSin", "XNNCos", "XNNFloor", "XNNCeiling", "XNNGelu", "XNNHardswish", "XNNSquare", "XNNClamp",
    "XNNAdd", "XNNSubtract", "XNNMultiply", "XNNDiv", "XNNMaximum", "XNNMinimum",
}  # fmt: skip

_FILTERED = ("XNNConv2d", "XNNDepthwiseConv2d", "XNNFullyConnected")


def workspace(graph: XnnpackGraph) -> int:
    """Bytes of the workspace that the delegate asks for when it first runs."""
    operands = graph.operands
    inner = [o.external is None and o.data is None for o in operands]
    readers: dict[int, list[int]] = {}
    made: dict[int, int] = {}
    for step, operator in enumerate(graph.operators):
        made[operator.output] = step
        for operand in set(operator.inputs):
            readers.setdefault(operand, []).append(step)
    blocks = {
        operand: Block(_rounded(operands[operand].nbytes), step, max([step, *readers.get(operand, [])]))
        for operand, step in made.items()
        if inner[operand]
    }
    root: dict[int, int] = {}
    for operator in graph.operators:
        if operator.kind not in _IN_PLACE or not inner[operator.output] or len(readers.get(operator.output, [])) != 1:
            continue
        for operand in operator.inputs:
            same = operands[operand].nbytes == operands[operator.output].nbytes
            if inner[operand] and len(readers[operand]) == 1 and same:
                owner = root.get(operand, operand)
                root[operator.output] = owner
                blocks[owner].last = readers[operator.output][0]
                blocks[operator.output].size = 0
                break
    scratch = [Block(_scratch(graph, operator), step, step) for step, operator in enumerate(graph.operators)]
    total = arena([*blocks.values(), *scratch])
    return total + 2 * _EXTRA if total else 0


def packed(graph: XnnpackGraph) -> int:
    """Bytes of constant weights, which are packed once and kept beside the workspace."""
    return sum(_filters(graph, operator) for operator in graph.operators if operator.kind in _FILTERED)


def _filters(graph: XnnpackGraph, operator: XnnpackOperator) -> int:
    """Weights as their kernel reads them; 0 where they come with every call."""
    weights = graph.operands[operator.inputs[1]]
    outputs = graph.operands[operator.output].shape[-1]
    return 0 if weights.data is None else _tiles(outputs, math.prod(weights.shape) // outputs)


def _scratch(graph: XnnpackGraph, operator: XnnpackOperator) -> int:
    """What an operator works in: weights that come with the call as their kernel reads them, a window's pointers."""
    if operator.kind in ("XNNConv2d", "XNNDepthwiseConv2d"):
        _, height, width, _ = graph.operands[operator.output].shape
        return 8 * height * width * int(operator.fields["kernel_height"]) * int(operator.fields["kernel_width"])
    if operator.kind not in ("XNNBatchMatrixMultiply", "XNNFullyConnected"):
        return 0
    weights = graph.operands[operator.inputs[1]]
    *batch, depth, width = weights.shape
    if operator.kind == "XNNFullyConnected" or operator.fields.get("flags"):
        depth, width = width, depth
    return 0 if weights.data is not None else math.prod(batch) * _tiles(width, depth)


def _tiles(width: int, depth: int) -> int:
    """``width`` columns of ``depth``, each with its bias."""
    return _rounded(-(-width // _TILE) * _TILE * (4 * depth + 4))


def _rounded(size: int) -> int:
    return -(-(size + _EXTRA) // _ALIGNMENT) * _ALIGNMENT
