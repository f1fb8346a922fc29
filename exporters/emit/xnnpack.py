"""
Regions of a lowered graph as graphs of XNNPACK, written directly.

ExecuTorch's own way there copies every region, traces it anew once per preparing pass, and walks it with visitors made
for quantised models; it took half of an export. The lowering emits few operators, in forms that XNNPACK has, so one
table says what each becomes. The same description serves the prediction of a program's memory.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.resources
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from executorch.backends.xnnpack import serialization
from executorch.backends.xnnpack.serialization.xnnpack_graph_serialize import (
    CONSTANT_TENSOR_ALIGNMENT,
    XNNHeader,
)
from executorch.exir._serialize._flatbuffer import _flatc_compile
from torch import Tensor, fx

from ..lowering import kernels  # noqa: F401  # it registers the operators
from ..lowering.marks import APART, mark

__all__ = ["XnnpackGraph", "XnnpackOperator", "Operand", "constant_of", "describe", "serialise", "supported"]

_aten = torch.ops.aten
_NONE = 2**32 - 1  # XNN_INVALID_VALUE_ID
_NO_OFFSET = 2**64 - 1
_INPUT, _OUTPUT = 1, 2  # XNN_VALUE_FLAG_EXTERNAL_...
_FLOAT32 = 1  # xnn_datatype_fp32
_RANK = 6  # XNN_MAX_TENSOR_DIMS
_MOST_CONCATENATED = 5
# Larger constants stay outside, where a portable kernel fills them: a program should not carry them.
_CONSTANT_ELEMENTS = 1024
_ALIGNED = CONSTANT_TENSOR_ALIGNMENT
# From this many bytes of packed constants on, a delegate gives them names; less is not worth a place of its own.
_NAMED_BYTES = 16_384
# XNNPACK's kernels may read as far beyond a tensor's end, whole vectors at a time (XNN_EXTRA_BYTES, rounded up).
_READ_BEYOND = 64


@dataclasses.dataclass(frozen=True)
class Operand:
    """
    A float32 tensor of the graph: external ones have an ``external`` number, constants their ``data``.

    ``packed`` tells how XNNPACK packs a constant, which it does not read again then; empty where it reads it in place.
    """

    shape: tuple[int, ...]
    external: int | None = None
    output: bool = False
    data: Tensor | None = None
    packed: str = ""

    @property
    def nbytes(self) -> int:
        """Bytes of its elements."""
        size = 4
        for d in self.shape:
            size *= d
        return size


@dataclasses.dataclass(frozen=True)
class XnnpackOperator:
    """
    A node of XNNPACK's graph.

    ``kind`` is its name in ExecuTorch's schema, ``inputs`` and ``output`` are positions in
    :attr:`XnnpackGraph.operands`, ``fields`` what else the schema asks for, and ``limits`` the bounds of a clamp.
    ``node`` is the lowered graph's.
    """

    kind: str
    inputs: tuple[int, ...]
    output: int
    fields: Mapping[str, Any]
    limits: tuple[float, float] | None
    node: fx.Node


@dataclasses.dataclass(frozen=True)
class XnnpackGraph:
    """One delegate: its tensors, and its operators in the order in which they run."""

    operands: Sequence[Operand]
    operators: Sequence[XnnpackOperator]


_UNARY = {
    _aten.neg.default: "XNNNegate",
    _aten.exp.default: "XNNExp",
    _aten.log.default: "XNNLog",
    _aten.sqrt.default: "XNNSquareRoot",
    _aten.rsqrt.default: "XNNReciprocalSquareRoot",
    _aten.abs.default: "XNNAbs",
    _aten.sigmoid.default: "XNNSigmoid",
    _aten.tanh.default: "XNNTanh",
    _aten.sin.default: "XNNSin",
    _aten.cos.default: "XNNCos",
    _aten.floor.default: "XNNFloor",
    _aten.ceil.default: "XNNCeiling",
    _aten.gelu.default: "XNNGelu",
    _aten.hardswish.default: "XNNHardswish",
}
_BINARY = {
    _aten.add.Tensor: "XNNAdd",
    _aten.sub.Tensor: "XNNSubtract",
    _aten.mul.Tensor: "XNNMultiply",
    _aten.div.Tensor: "XNNDiv",
    _aten.maximum.default: "XNNMaximum",
    _aten.minimum.default: "XNNMinimum",
}
_CONSTANTS = {_aten.full.default}


def constant_of(node: fx.Node) -> Tensor | None:
    """The value of a small float constant (``full``, or a tensor kept in the graph), else :obj:`None`."""
    if node.op == "get_attr":
        owner = node.graph.owning_module
        value = getattr(owner, str(node.target))
        return value if isinstance(value, Tensor) and value.dtype == torch.float32 else None
    if node.op != "call_function" or node.target not in _CONSTANTS:
        return None
    meta = node.meta["val"]
    if meta.dtype != torch.float32 or meta.numel() > _CONSTANT_ELEMENTS:
        return None
    return torch.full(tuple(meta.shape), float(node.args[1]))  # type: ignore[arg-type]


def supported(node: fx.Node) -> bool:
    """Whether :func:`describe` knows the operator, with these arguments."""
    if node.op != "call_function" or node.target not in _WRITERS or mark(node, APART):
        return False
    tensors = [node, *node.all_input_nodes]
    values = [n.meta.get("val") for n in tensors]
    if not all(
        isinstance(v, Tensor) and v.dtype == torch.float32 and v.dim() <= _RANK and v.numel() > 0 for v in values
    ):
        return False
    check = _CHECKS.get(node.target)
    return check is None or check(node)


def _no_alpha(node: fx.Node) -> bool:
    return bool(node.kwargs.get("alpha", 1) == 1)


def _slices_by_one(node: fx.Node) -> bool:
    return bool(len(node.args) < 5 or node.args[4] == 1)


def _view_inside(node: fx.Node) -> bool:
    """
    Whether the view is of a tensor that the region computes.

    Inside a region, a view of an outer tensor is a copy; outside, ExecuTorch makes it a pointer. Weights are such.
    """
    source = node.args[0]
    return isinstance(source, fx.Node) and source.op != "placeholder"


def _softmax_of_last(node: fx.Node) -> bool:
    rank = node.meta["val"].dim()
    return bool(int(node.args[1]) % rank == rank - 1)  # type: ignore[arg-type]


_CHECKS: dict[Any, Callable[[fx.Node], bool]] = {
    _aten.add.Tensor: _no_alpha,
    _aten.sub.Tensor: _no_alpha,
    _aten.div.Tensor: lambda node: not node.kwargs,
    _aten.gelu.default: lambda node: bool(node.kwargs.get("approximate", "none") == "none"),
    _aten.pow.Tensor_Scalar: lambda node: bool(node.args[1] == 2),
    _aten.slice_copy.Tensor: _slices_by_one,
    _aten.view_copy.default: _view_inside,
    _aten._softmax.default: _softmax_of_last,
    _aten.cat.default: lambda node: 2 <= len(node.args[0]) <= _MOST_CONCATENATED,  # type: ignore[arg-type]
    _aten.constant_pad_nd.default: lambda node: all(int(p) >= 0 for p in node.args[1]),  # type: ignore[union-attr,arg-type]
}


def describe(nodes: Sequence[fx.Node], inputs: Sequence[fx.Node], outputs: Sequence[fx.Node]) -> XnnpackGraph:
    """
    The graph of a region.

    Args:
        nodes: the region, in an order in which it can run; constants among their inputs are taken in.
        inputs: what comes from outside, in the order of the call.
        outputs: what is used outside, in the order of the results.

    """
    return _Writer(nodes, inputs, outputs).graph()


class _Writer:
    def __init__(self, nodes: Sequence[fx.Node], inputs: Sequence[fx.Node], outputs: Sequence[fx.Node]) -> None:
        self.nodes = nodes
        self.external = {node: i for i, node in enumerate(inputs)}
        self.results = {node: len(inputs) + i for i, node in enumerate(outputs)}
        self.operands: list[Operand] = []
        self.operators: list[XnnpackOperator] = []
        self.known: dict[Any, int] = {}

    def graph(self) -> XnnpackGraph:
        for node in self.nodes:
            _WRITERS[node.target](self, node)
        return XnnpackGraph(self.operands, self.operators)

    def operand(self, argument: Any, packed: str = "") -> int:
        """
        The position of an argument: a node, or a number that stands for a tensor.

        A constant is one value for all that read it in place, and another for each way in which it is ``packed``.
        """
        key = argument if isinstance(argument, fx.Node) else ("number", float(argument))
        packed = packed if _is_constant(argument) else ""
        if packed:
            key = (packed, argument)
        if key not in self.known:
            self.known[key] = len(self.operands)
            self.operands.append(dataclasses.replace(self._operand(argument), packed=packed))
        return self.known[key]

    def _operand(self, argument: Any) -> Operand:
        if not isinstance(argument, fx.Node):
            return Operand((1,), data=torch.tensor([float(argument)]))
        shape = tuple(argument.meta["val"].shape) or (1,)
        if argument in self.external:
            return Operand(shape, self.external[argument])
        if argument in self.results:
            return Operand(shape, self.results[argument], output=True)
        data = constant_of(argument)
        return Operand(shape, data=data)

    def intermediate(self, shape: tuple[int, ...]) -> int:
        """The position of a tensor that no node of the graph stands for."""
        self.operands.append(Operand(shape))
        return len(self.operands) - 1

    def add(
        self,
        kind: str,
        node: fx.Node,
        inputs: Sequence[Any],
        fields: Mapping[str, Any] | None = None,
        limits: tuple[float, float] | None = None,
    ) -> None:
        """Append an operator that computes ``node``."""
        how = f"{kind} {fields}" if kind in _PACKING else ""
        ids = tuple(self.operand(argument, how if i > 0 else "") for i, argument in enumerate(inputs))
        self.operators.append(XnnpackOperator(kind, ids, self.operand(node), fields or {}, limits, node))


def _unary(writer: _Writer, node: fx.Node) -> None:
    writer.add(_UNARY[node.target], node, node.args[:1])  # type: ignore[index]


def _binary(writer: _Writer, node: fx.Node) -> None:
    writer.add(_BINARY[node.target], node, node.args[:2])  # type: ignore[index]


def _square(writer: _Writer, node: fx.Node) -> None:
    writer.add("XNNSquare", node, node.args[:1])


def _relu(writer: _Writer, node: fx.Node) -> None:
    writer.add("XNNClamp", node, node.args[:1], limits=(0.0, float("inf")))


def _clamp(writer: _Writer, node: fx.Node) -> None:
    low, high = [*node.args[1:], None, None][:2]
    limits = (
        -float("inf") if low is None else float(low),  # type: ignore[arg-type]
        float("inf") if high is None else float(high),  # type: ignore[arg-type]
    )
    writer.add("XNNClamp", node, node.args[:1], limits=limits)


def _bmm(writer: _Writer, node: fx.Node) -> None:
    writer.add("XNNBatchMatrixMultiply", node, node.args[:2])


def _dense(writer: _Writer, node: fx.Node) -> None:
    x, weight, bias = [*node.args, None][:3]
    if _is_constant(bias) and not _is_constant(weight):
        # A weight that is no constant is packed with its bias in every run, and ExecuTorch frees constants
        # of dense layers when the first packing is done: add the bias apart.
        ids = writer.operand(x), writer.operand(weight)
        product = writer.intermediate(tuple(node.meta["val"].shape))
        writer.operators.append(XnnpackOperator("XNNFullyConnected", ids, product, {"bias_id": _NONE}, None, node))
        ids = product, writer.operand(bias)
        writer.operators.append(XnnpackOperator("XNNAdd", ids, writer.operand(node), {}, None, node))
        return
    writer.add("XNNFullyConnected", node, [a for a in (x, weight, bias) if a is not None], {"bias_id": _NONE})


def _is_constant(argument: Any) -> bool:
    return isinstance(argument, fx.Node) and constant_of(argument) is not None


def _convolution(writer: _Writer, node: fx.Node) -> None:
    image, filters, bias, stride, padding, dilation, groups = node.args
    channels = image.meta["val"].shape[3], node.meta["val"].shape[3]  # type: ignore[union-attr]
    height, width = filters.meta["val"].shape[1:3]  # type: ignore[union-attr]
    fields = {
        "padding_top": padding[0],  # type: ignore[index]
        "padding_bottom": padding[0],  # type: ignore[index]
        "padding_left": padding[1],  # type: ignore[index]
        "padding_right": padding[1],  # type: ignore[index]
        "kernel_height": height,
        "kernel_width": width,
        "subsampling_height": stride[0],  # type: ignore[index]
        "subsampling_width": stride[1],  # type: ignore[index]
        "dilation_height": dilation[0],  # type: ignore[index]
        "dilation_width": dilation[1],  # type: ignore[index]
        "group_input_channels": channels[0] // groups,
        "group_output_channels": channels[1] // groups,
        "groups": groups,
        "adjustment_height": 0,
        "adjustment_width": 0,
        "bias_id": _NONE,
    }
    kind = "XNNConv2d" if groups == 1 else "XNNDepthwiseConv2d"
    writer.add(kind, node, [image, filters] if bias is None else [image, filters, bias], fields)


def _pool(writer: _Writer, node: fx.Node) -> None:
    kernel, stride, padding, dilation = [*node.args[1:], [0, 0], [1, 1]][:4]
    fields = {
        "padding_top": padding[0],  # type: ignore[index]
        "padding_bottom": padding[0],  # type: ignore[index]
        "padding_left": padding[1],  # type: ignore[index]
        "padding_right": padding[1],  # type: ignore[index]
        "pooling_height": kernel[0],  # type: ignore[index]
        "pooling_width": kernel[1],  # type: ignore[index]
        "stride_height": stride[0],  # type: ignore[index]
        "stride_width": stride[1],  # type: ignore[index]
        "dilation_height": dilation[0],  # type: ignore[index]
        "dilation_width": dilation[1],  # type: ignore[index]
    }
    largest = node.target is torch.ops.ftte.max_pool.default
    writer.add("XNNMaxPooling2d" if largest else "XNNAvgPooling2d", node, node.args[:1], fields)


def _crop(writer: _Writer, node: fx.Node) -> None:
    source, starts, sizes = node.args
    fields = {"num_dims": len(sizes), "offsets": list(starts), "sizes": list(sizes)}  # type: ignore[arg-type]
    writer.add("XNNStaticSlice", node, [source], fields)


def _view(writer: _Writer, node: fx.Node) -> None:
    shape = list(node.meta["val"].shape)
    writer.add("XNNStaticReshape", node, node.args[:1], {"num_dims": len(shape), "new_shape": shape})


def _permute(writer: _Writer, node: fx.Node) -> None:
    rank = node.meta["val"].dim()
    order = [int(a) % rank for a in node.args[1]]  # type: ignore[union-attr,arg-type]
    writer.add("XNNStaticTranspose", node, node.args[:1], {"num_dims": rank, "perm": order})


def _slice(writer: _Writer, node: fx.Node) -> None:
    source: Any = node.args[0]
    axis, start = [*node.args[1:3], 0, 0][:2]
    length = source.meta["val"].shape[int(axis)]  # type: ignore[arg-type]
    offsets = [0] * source.meta["val"].dim()
    offsets[int(axis)] = slice(start, None).indices(length)[0]  # type: ignore[arg-type]
    sizes = list(node.meta["val"].shape)
    writer.add("XNNStaticSlice", node, [source], {"num_dims": len(sizes), "offsets": offsets, "sizes": sizes})


def _pad(writer: _Writer, node: fx.Node) -> None:
    widths: Any = node.args[1]
    rank = node.meta["val"].dim()
    before, after = [0] * rank, [0] * rank
    for i in range(len(widths) // 2):
        before[rank - 1 - i], after[rank - 1 - i] = int(widths[2 * i]), int(widths[2 * i + 1])
    value = float(node.args[2]) if len(node.args) > 2 else 0.0  # type: ignore[arg-type]
    fields = {"pre_paddings": before, "post_paddings": after, "padding_value": value}
    writer.add("XNNStaticConstantPad", node, node.args[:1], fields)


def _softmax(writer: _Writer, node: fx.Node) -> None:
    writer.add("XNNSoftmax", node, node.args[:1])


def _cat(writer: _Writer, node: fx.Node) -> None:
    parts: Any = node.args[0]
    axis = int(node.args[1]) if len(node.args) > 1 else 0  # type: ignore[arg-type]
    writer.add(f"XNNConcatenate{len(parts)}", node, parts, {"axis": axis % node.meta["val"].dim()})


_WRITERS: dict[Any, Callable[[_Writer, fx.Node], None]] = {
    **dict.fromkeys(_UNARY, _unary),
    **dict.fromkeys(_BINARY, _binary),
    _aten.pow.Tensor_Scalar: _square,
    _aten.relu.default: _relu,
    _aten.clamp.default: _clamp,
    _aten.bmm.default: _bmm,
    torch.ops.ftte.dense.default: _dense,
    torch.ops.ftte.max_pool.default: _pool,
    torch.ops.ftte.average_pool.default: _pool,
    torch.ops.ftte.crop.default: _crop,
    torch.ops.ftte.mean_pixel.default: lambda writer, node: writer.add("XNNGlobalAvgPooling2d", node, node.args[:1]),
    torch.ops.ftte.static_convolution.default: _convolution,
    _aten.view_copy.default: _view,
    _aten.permute_copy.default: _permute,
    _aten.slice_copy.Tensor: _slice,
    _aten.constant_pad_nd.default: _pad,
    _aten._softmax.default: _softmax,
    _aten.cat.default: _cat,
}


def serialise(graph: XnnpackGraph) -> tuple[bytes, dict[str, bytes]]:
    """
    What ExecuTorch's XNNPACK backend reads: a header, the graph, and behind it constants; and other constants by name.

    The backend frees constants with names when it has set the delegate up: at once or, in its Android and Apple builds,
    by way of a cache that all delegates of the process share. So what operators read in every run has no name. Large
    weights that XNNPACK packs have one: the program keeps them once for all of its methods, and such a cache keeps
    their packed form once. It loses track of what is packed without a name, so a delegate's packed constants have all
    names, or none.
    """
    packed = sum(operand.nbytes for operand in graph.operands if operand.packed)
    named: dict[str, bytes] = {}
    data = bytearray()
    places: dict[str | bytes, int] = {}
    entries: list[dict[str, Any]] = [{"offset": 0, "size": 0}]
    values = []
    for position, operand in enumerate(graph.operands):
        buffer = 0
        if operand.data is not None:
            content = operand.data.contiguous().numpy().tobytes()
            name = _name(operand, content) if operand.packed and packed >= _NAMED_BYTES else ""
            if (name or content) not in places:
                places[name or content] = len(entries)
                if name:
                    named[name] = content
                    entries.append({"offset": _NO_OFFSET, "size": len(content), "named_key": name})
                else:
                    entries.append({"offset": len(data), "size": len(content)})
                    data += content.ljust(_rounded(len(content)), b"\0")
            buffer = places[name or content]
        tensor = {
            "datatype": _FLOAT32,
            "num_dims": len(operand.shape),
            "dims": list(operand.shape),
            "external_id": _NONE if operand.external is None else operand.external,
            "constant_buffer_idx": buffer,
            "flags": 0 if operand.external is None else (_OUTPUT if operand.output else _INPUT),
            "id_out": position,
        }
        values.append({"xvalue_union_type": "XNNTensorValue", "xvalue_union": tensor})
    external = [(i, o) for i, o in enumerate(graph.operands) if o.external is not None]
    described = {
        "version": "0",
        "xnodes": [_node(operator) for operator in graph.operators],
        "xvalues": values,
        "num_externs": len(external),
        "input_ids": [i for i, o in external if not o.output],
        "output_ids": [i for i, o in external if o.output],
        "constant_data": entries,
    }
    return _framed(_flatbuffer(described), bytes(data) + bytes(_READ_BEYOND if data else 0)), named


def _name(operand: Operand, content: bytes) -> str:
    """
    The same for all delegates that pack the same constant in the same way, and for no others.

    The cache finds packed weights by their names alone.
    """
    return hashlib.sha256(f"{operand.packed} {operand.shape} ".encode() + content).hexdigest()[:32]


_INPUT_NAMES = {1: ("input_id",), 2: ("input1_id", "input2_id")}
_WITH_FILTERS = ("XNNFullyConnected", "XNNConv2d", "XNNDepthwiseConv2d")
# What packs all but its first operand where that is constant.
_PACKING = (*_WITH_FILTERS, "XNNBatchMatrixMultiply")


def _node(operator: XnnpackOperator) -> dict[str, Any]:
    fields: dict[str, Any] = {"output_id": operator.output, "flags": 0, **operator.fields}
    if operator.kind.startswith("XNNConcatenate"):
        ids = [*operator.inputs, *[_NONE] * _MOST_CONCATENATED][:_MOST_CONCATENATED]
        fields |= {f"input{i + 1}_id": value for i, value in enumerate(ids)}
    elif operator.kind in _WITH_FILTERS:
        fields |= dict(zip(("input1_id", "filter_id", "bias_id"), operator.inputs, strict=False))
    else:
        fields |= dict(zip(_INPUT_NAMES[len(operator.inputs)], operator.inputs, strict=True))
    node: dict[str, Any] = {"xnode_union_type": operator.kind, "xnode_union": fields, "debug_handle": 0}
    if operator.limits is not None:
        low, high = (str(limit) if limit in (float("inf"), -float("inf")) else limit for limit in operator.limits)
        node["output_min_max"] = {"output_min": low, "output_max": high}
    return node


def _flatbuffer(data: Mapping[str, Any]) -> bytes:
    """By flatc, which the executorch package brings along."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        schema, text = folder / "schema.fbs", folder / "graph.json"
        schema.write_bytes(importlib.resources.files(serialization).joinpath("schema.fbs").read_bytes())
        text.write_text(json.dumps(data))
        _flatc_compile(str(folder), str(schema), str(text))
        return (folder / "graph.bin").read_bytes()


def _framed(content: bytes, constants: bytes) -> bytes:
    """With the header that the backend looks for."""
    start = _rounded(XNNHeader.EXPECTED_LENGTH)
    padded = _rounded(len(content))
    header = XNNHeader(
        flatbuffer_offset=start,
        flatbuffer_size=len(content),
        constant_data_offset=start + padded,
        constant_data_size=len(constants),
    ).to_bytes()
    return bytes(header.ljust(start, b"\0") + content.ljust(padded, b"\0") + constants)


def _rounded(size: int) -> int:
    return int(-(-size // _ALIGNED) * _ALIGNED)
