"""
The graph file of a program: its lowered methods as data.

A safetensors file. Its arrays are the constants of all methods; its metadata holds, under ``ftte.graph``, JSON::

    {"format": 1,
     "methods": {"train_step": {"inputs": [["float32", [16, 64]], ...],
                                "constants": ["0", ...],
                                "nodes": [["view", 0, [1, 16, 64]], ["bmm", 5, 6], ...],
                                "outputs": [31, ...]}}}

The values of a method are numbered: inputs, then constants, then what each node gives. A node is the name of an
operator and its arguments by the operator's kinds (:data:`~mobile_sdk.engines.interpreted.operators.OPERATORS`): a
value is its number, ``operand`` is a value's number or ``[number]``, infinities and NaN are text.

The file comes from a coordinator, so everything is checked before anything runs, and a node can only name values
before it: a graph is neither able to loop nor to reach for anything but numpy.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ... import safetensors
from ...errors import PayloadError, ProgramError
from .operators import DTYPES, OPERATORS, Operator

__all__ = ["FORMAT", "ProgramGraph", "MethodGraph", "Node", "GraphValue", "Values", "dumps", "loads"]

FORMAT = 1
_KEY = "ftte.graph"
_MOST_AXES = 32

Array = npt.NDArray[Any]


@dataclasses.dataclass(frozen=True)
class GraphValue:
    """An argument that is a value of the graph, by its number."""

    index: int


@dataclasses.dataclass(frozen=True)
class Values:
    """An argument that is a list of values, or of nothing where the operator allows it."""

    indices: tuple[int | None, ...]


@dataclasses.dataclass(frozen=True)
class Node:
    """One application of an operator. ``arguments`` fit its kinds; ``last`` are values that nothing later needs."""

    name: str
    arguments: tuple[Any, ...]
    last: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True)
class MethodGraph:
    """A method. Inputs and constants are the first values, ``outputs`` names the results."""

    inputs: tuple[tuple[str, tuple[int, ...]], ...]
    constants: tuple[str, ...]
    nodes: tuple[Node, ...]
    outputs: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class ProgramGraph:
    """Methods by name, and the constants that they share, by theirs."""

    methods: Mapping[str, MethodGraph]
    constants: Mapping[str, Array]


def dumps(graph: ProgramGraph) -> bytes:
    """The bytes of a graph file."""
    methods = {
        name: {
            "inputs": [[dtype, list(shape)] for dtype, shape in method.inputs],
            "constants": list(method.constants),
            "nodes": [[node.name, *_written(node)] for node in method.nodes],
            "outputs": list(method.outputs),
        }
        for name, method in graph.methods.items()
    }
    text = json.dumps({"format": FORMAT, "methods": methods}, separators=(",", ":"), allow_nan=False)
    return safetensors.dumps(graph.constants, {_KEY: text})


def loads(content: bytes | memoryview) -> ProgramGraph:
    """
    Parse and check a graph file; constants are read-only views into ``content``.

    Raises:
        ProgramError: if it is malformed, of another format, or uses an operator that this SDK does not have.

    """
    try:
        constants, metadata = safetensors.loads(content)
        data = json.loads(metadata[_KEY])
        if data["format"] != FORMAT:
            raise ProgramError(f"the graph has format {data['format']!r}; this SDK reads {FORMAT}: update the SDK")
        methods = {str(name): _method(item, constants) for name, item in data["methods"].items()}
    except PayloadError as error:
        raise ProgramError(f"not a program's graph: {error}") from error
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ProgramError(f"not a program's graph: {type(error).__name__}: {error}") from error
    return ProgramGraph(methods, constants)


def _method(data: Any, arrays: Mapping[str, Array]) -> MethodGraph:
    inputs = tuple((_dtype(dtype), tuple(_whole(size, 0) for size in shape)) for dtype, shape in data["inputs"])
    constants = tuple(data["constants"])
    unknown = [name for name in constants if name not in arrays]
    if unknown:
        raise ValueError(f"there is no constant {unknown[0]!r}")
    first = len(inputs) + len(constants)
    nodes = [_node(item, first + i) for i, item in enumerate(data["nodes"])]
    outputs = tuple(_index(index, first + len(nodes)) for index in data["outputs"])
    return MethodGraph(inputs, constants, _with_last_uses(nodes, first, outputs), outputs)


def _node(item: Any, count: int) -> Node:
    """A node that may refer to the first ``count`` values."""
    name, *arguments = item
    found = OPERATORS.get(name)
    if found is None:
        raise ProgramError(f"the graph needs the operator {name!r}, which this SDK does not have: update the SDK")
    if len(arguments) != len(found.kinds):
        raise ValueError(f"{name!r} takes {len(found.kinds)} arguments, not {len(arguments)}")
    return Node(name, tuple(_argument(kind, a, count) for kind, a in zip(found.kinds, arguments, strict=True)))


def _argument(kind: str, item: Any, count: int) -> Any:
    match kind:
        case "tensor":
            return GraphValue(_index(item, count))
        case "tensor?":
            return None if item is None else GraphValue(_index(item, count))
        case "tensors":
            return Values(tuple(_index(i, count) for i in item))
        case "tensors?":
            return Values(tuple(None if i is None else _index(i, count) for i in item))
        case "operand?" if item is None:
            return None
        case "operand" | "operand?":
            return _number(item[0]) if isinstance(item, list) and len(item) == 1 else GraphValue(_index(item, count))
        case "number":
            return _number(item)
        case "number?":
            return None if item is None else _number(item)
        case "int":
            return _whole(item)
        case "ints":
            if len(item) > 2 * _MOST_AXES:
                raise ValueError(f"{len(item)} numbers where there is one or two per axis")
            return tuple(_whole(i) for i in item)
        case "bool":
            if not isinstance(item, bool):
                raise ValueError(f"{item!r} is not true or false")
            return item
        case _:
            return _dtype(item)


def _index(item: Any, count: int) -> int:
    if _whole(item, 0) >= count:
        raise ValueError(f"value {item} is used before it is there")
    return int(item)


def _whole(item: Any, least: int = -(2**63)) -> int:
    if not isinstance(item, int) or isinstance(item, bool) or not least <= item < 2**63:
        raise ValueError(f"{item!r} is not a whole number that is allowed here")
    return item


def _number(item: Any) -> float:
    if item in ("inf", "-inf", "nan"):
        return float(item)
    if not isinstance(item, int | float):
        raise ValueError(f"{item!r} is not a number")
    return item


def _dtype(item: Any) -> str:
    if item not in DTYPES:
        raise ValueError(f"{item!r} is not a dtype of programs")
    return str(item)


def _with_last_uses(nodes: list[Node], first: int, outputs: tuple[int, ...]) -> tuple[Node, ...]:
    """Free a value with the node that uses it last, or with its own where nothing does; never inputs or constants."""
    last = {first + i: i for i in range(len(nodes))}
    for i, node in enumerate(nodes):
        for index in _uses(node):
            if index >= first:
                last[index] = i
    freed: list[list[int]] = [[] for _ in nodes]
    for index, i in last.items():
        if index not in outputs:
            freed[i].append(index)
    return tuple(dataclasses.replace(node, last=tuple(f)) for node, f in zip(nodes, freed, strict=True))


def _uses(node: Node) -> list[int]:
    found: list[int] = []
    for argument in node.arguments:
        if isinstance(argument, GraphValue):
            found.append(argument.index)
        elif isinstance(argument, Values):
            found.extend(i for i in argument.indices if i is not None)
    return found


def _written(node: Node) -> list[Any]:
    kinds = _operator(node.name).kinds
    return [_item(kind, argument) for kind, argument in zip(kinds, node.arguments, strict=True)]


def _operator(name: str) -> Operator:
    return OPERATORS[name]


def _item(kind: str, argument: Any) -> Any:
    if isinstance(argument, GraphValue):
        return argument.index
    if isinstance(argument, Values):
        return list(argument.indices)
    if isinstance(argument, float) and not np.isfinite(argument):
        argument = str(argument)
    if kind == "operand?" and argument is None:
        return None
    return (
        [argument] if kind in ("operand", "operand?") else list(argument) if isinstance(argument, tuple) else argument
    )
