"""
Lowered graphs as data, for the engine that interprets them.

What :mod:`exporters.emit.pte` compiles for ExecuTorch is written here as the operators that
:mod:`mobile_sdk.engines.interpreted` knows. It is the same graph, so both engines compute the same.
"""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, fx

from mobile_sdk.engines.interpreted.graph import GraphValue, MethodGraph, Node, ProgramGraph, Values, dumps
from mobile_sdk.engines.interpreted.operators import OPERATORS

from ..errors import ExportError

__all__ = ["graph_bytes"]

_aten = torch.ops.aten

# Overloads whose name in a graph file is not ATen's own.
_NAMES = {
    _aten.view_copy.default: "view",
    _aten._unsafe_view.default: "view",
    _aten.reshape.default: "view",
    _aten.permute_copy.default: "permute",
    _aten.expand_copy.default: "expand",
    _aten.slice_copy.Tensor: "slice",
    _aten.select_copy.int: "select",
    _aten.unsqueeze_copy.default: "unsqueeze",
    _aten.squeeze_copy.dims: "squeeze",
    _aten._to_copy.default: "to",
}
_SAME = (_aten.alias.default, _aten.clone.default, _aten.detach.default, _aten.lift_fresh_copy.default)
# What numpy has no use for: places, layouts, and choices that the lowering has made already.
_DROPPED = {
    "device", "half_to_float", "implicit", "layout", "memory_format", "non_blocking", "padding_idx", "pin_memory",
    "scale_grad_by_freq", "sparse", "sparse_grad", "unsafe",
}  # fmt: skip
# Arguments that a graph file leaves out; any other value than this has no form there.
_ONLY = {"alpha": 1, "approximate": "none"}
_FILLED = {_aten.ones.default: 1, _aten.zeros.default: 0}


def graph_bytes(methods: Mapping[str, fx.GraphModule]) -> bytes:
    """
    The graph file of lowered methods.

    Args:
        methods: name -> lowered graph, as :func:`~exporters.emit.pte.emit` takes it.

    Raises:
        ExportError: if a graph holds an operator that the interpreter does not have.

    """
    constants: dict[str, npt.NDArray[Any]] = {}
    written = {name: _Writer(graph, constants).method() for name, graph in methods.items()}
    return dumps(ProgramGraph(written, constants))


class _Writer:
    """Numbers the values of one method: inputs, constants, nodes."""

    def __init__(self, graph: fx.GraphModule, constants: dict[str, npt.NDArray[Any]]) -> None:
        self._graph = graph
        self._constants = constants
        self._numbers: dict[fx.Node, int] = {}
        self._nodes: list[Node] = []

    def method(self) -> MethodGraph:
        nodes = list(self._graph.graph.nodes)
        names: dict[str, int] = {}
        inputs: list[tuple[str, tuple[int, ...]]] = []
        for node in nodes:
            if node.op == "placeholder":
                self._numbers[node] = len(inputs)
                inputs.append((_dtype(node.meta["val"].dtype), tuple(node.meta["val"].shape)))
        for node in nodes:
            if node.op == "get_attr":
                name = self._constant(operator.attrgetter(node.target)(self._graph))
                self._numbers[node] = names.setdefault(name, len(inputs) + len(names))
        first = len(inputs) + len(names)
        outputs: tuple[int, ...] = ()
        for node in nodes:
            if node.op == "output":
                outputs = tuple(self._numbers[n] for n in node.args[0])
            elif node.target is _aten.topk.default:
                pass  # each of its results is an operator of its own
            elif node.op == "call_function" and node.target in _SAME:
                self._numbers[node] = self._numbers[node.args[0]]
            elif node.op == "call_function":
                self._numbers[node] = first + len(self._nodes)
                self._nodes.append(self._node(node))
        return MethodGraph(tuple(inputs), tuple(names), tuple(self._nodes), outputs)

    def _constant(self, tensor: Tensor) -> str:
        """Equal constants are one array of the file."""
        array = tensor.detach().numpy()
        digest = hashlib.sha256(f"{array.dtype} {array.shape}".encode() + array.tobytes()).hexdigest()[:16]
        self._constants.setdefault(digest, array)
        return digest

    def _node(self, node: fx.Node) -> Node:
        target: Any = node.target
        if target is operator.getitem:
            return self._one_of_topk(node)
        result = node.meta["val"]
        if target in _FILLED:
            return Node("full", (tuple(result.shape), _FILLED[target], _dtype(result.dtype)))
        given = {a.name: value for a, value in zip(target._schema.arguments, node.args, strict=False)} | node.kwargs
        arguments = {a.name: given.get(a.name, a.default_value) for a in target._schema.arguments}
        name = _NAMES.get(target, target._schema.name.partition("::")[2])
        match name:
            case "arange":
                limits = (arguments.get("start", 0), arguments["end"], arguments.get("step", 1))
                return Node(name, (*limits, _dtype(result.dtype)))
            case "slice":
                source, axis = node.args[0].meta["val"], arguments["dim"]  # type: ignore[union-attr]
                start, stop, step = slice(arguments["start"], arguments["end"], arguments["step"]).indices(
                    source.shape[axis]
                )
                return Node(name, (self._value(node.args[0]), axis, start, stop, step))
            case "view":
                return Node(name, (self._value(node.args[0]), tuple(result.shape)))
        for key, only in _ONLY.items():
            if arguments.pop(key, only) != only:
                raise ExportError(f"the operator {target} with {key}={given[key]} cannot be interpreted")
        arguments = {key: value for key, value in arguments.items() if key not in _DROPPED}
        if "dtype" in arguments:
            arguments["dtype"] = result.dtype
        found = OPERATORS.get(name)
        if found is None or len(found.kinds) != len(arguments):
            raise ExportError(
                f"the operator {target} cannot be interpreted: add it to mobile_sdk.engines.interpreted.operators"
            )
        encoded = [self._argument(kind, value) for kind, value in zip(found.kinds, arguments.values(), strict=True)]
        return Node(name, tuple(encoded))

    def _one_of_topk(self, node: fx.Node) -> Node:
        source: Any = node.args[0]
        x, k, axis, largest = (*source.args, *(-1, True)[len(source.args) - 2 :])[:4]
        name = "topk_places" if node.args[1] else "topk_values"
        return Node(name, (self._value(x), k, axis, bool(largest)))

    def _argument(self, kind: str, value: Any) -> Any:
        match kind:
            case "tensor" | "tensor?" | "operand" | "operand?":
                return self._value(value) if isinstance(value, fx.Node) else value
            case "tensors":
                return Values(tuple(self._numbers[v] for v in value))
            case "tensors?":
                return Values(tuple(None if v is None else self._numbers[v] for v in value))
            case "ints":
                return () if value is None else (value,) if isinstance(value, int) else tuple(value)
            case "bool":
                return bool(value)
            case "dtype":
                return _dtype(value)
        return value

    def _value(self, node: Any) -> GraphValue:
        return GraphValue(self._numbers[node])


def _dtype(dtype: torch.dtype) -> str:
    return np.dtype(str(dtype).removeprefix("torch.")).name
