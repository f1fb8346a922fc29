"""Run a graph file with numpy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...durable_files import map_file
from ...errors import ProgramError
from ...manifest import GRAPH_FILE, Manifest, TensorSpec
from ..call import Call
from ..calling_engine import CallingEngine
from ..runtime_build import interpreter
from .blas import limited
from .graph import GraphValue, MethodGraph, Node, ProgramGraph, Values, loads
from .operators import OPERATORS

__all__ = ["InterpretedEngine"]

Array = npt.NDArray[Any]


class InterpretedEngine(CallingEngine):
    """
    The engine of machines without ExecuTorch; see :class:`~mobile_sdk.engines.base.Engine`.

    It computes what the other engines compute, up to the rounding of float32, in numpy's time and memory. Values
    are freed at their last use. Constants stay in the mapped file. Speed is that of numpy's matrix products: with
    a numpy that was built without a BLAS library, they are plain loops. With OpenBLAS they use ``threads`` threads.

    Raises:
        ProgramError: if ``folder`` holds no graph that fits ``manifest``.

    """

    def __init__(self, folder: Path, manifest: Manifest, *, threads: int = 1) -> None:
        super().__init__(manifest)
        self._threads = threads
        path = folder / GRAPH_FILE
        try:
            self._graph: ProgramGraph | None = loads(map_file(path))
        except (OSError, ValueError) as error:  # a file without a byte cannot be mapped
            raise ProgramError(f"the program's graph {path} cannot be read: {error}") from error
        for method in manifest.methods:
            _compare(self._calls[method], self._graph)
        self.runtime = interpreter()

    def _execute(self, call: Call, arguments: list[Array]) -> list[Array]:
        if self._graph is None:
            raise ProgramError("the program is closed")
        method = self._graph.methods[call.method]
        values: list[Any] = [*arguments, *(self._graph.constants[name] for name in method.constants)]
        given = values.copy()
        with limited(self._threads), np.errstate(all="ignore"):  # as ExecuTorch: infinities and NaN are values
            for node in method.nodes:
                values.append(_apply(node, values))
                for index in node.last:
                    values[index] = None
        return [_result(spec, values[index], given) for spec, index in zip(call.outputs, method.outputs, strict=True)]

    def _close(self) -> None:
        self._graph = None


def _apply(node: Node, values: list[Any]) -> Array:
    arguments = [_value(a, values) for a in node.arguments]
    try:
        return np.asarray(OPERATORS[node.name].function(*arguments))
    except MemoryError as error:
        raise ProgramError(f"{node.name!r} needs more memory than there is: {error}") from error
    except (ArithmeticError, IndexError, TypeError, ValueError) as error:
        raise ProgramError(f"the graph's {node.name!r} cannot be computed: {error}") from error


def _value(argument: Any, values: list[Any]) -> Any:
    if isinstance(argument, GraphValue):
        return values[argument.index]
    if isinstance(argument, Values):
        return [None if i is None else values[i] for i in argument.indices]
    return argument


def _result(spec: TensorSpec, value: Array, given: list[Any]) -> Array:
    if (value.shape, value.dtype) != (spec.shape, np.dtype(spec.dtype)):
        raise ProgramError(
            f"the graph gives {spec.role} {spec.name!r} as {value.dtype} of shape {value.shape}, "
            f"not {spec.dtype} of shape {spec.shape}"
        )
    value = np.ascontiguousarray(value).reshape(spec.shape)  # which would turn a number into an array of one
    # The caller may write to a gradient; what it passed in is not the place.
    return value.copy() if any(np.may_share_memory(value, array) for array in given) else value


def _compare(call: Call, graph: ProgramGraph) -> None:
    """What the manifest says of a method against what the graph says."""
    method: MethodGraph | None = graph.methods.get(call.method)
    if method is None:
        raise ProgramError(f"manifest and graph disagree: the graph has no method {call.method!r}")
    inputs = tuple((spec.dtype, spec.shape) for spec in call.inputs)
    if inputs != method.inputs:
        raise ProgramError(
            f"manifest and graph disagree: {call.method!r} takes {inputs} by the manifest, {method.inputs} really"
        )
    if len(call.outputs) != len(method.outputs):
        raise ProgramError(
            f"manifest and graph disagree: {call.method!r} has {len(call.outputs)} outputs by the manifest, "
            f"{len(method.outputs)} really"
        )
