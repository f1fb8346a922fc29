"""Lowered graphs to the bytes of an ExecuTorch program, with the XNNPACK delegate."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import json
import operator
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from executorch.exir import EdgeCompileConfig, EdgeProgramManager, ExecutorchBackendConfig
from executorch.exir import lowered_backend_module as exir_lowered
from executorch.exir._serialize._named_data_store import NamedDataStore, NamedDataStoreOutput
from executorch.exir._serialize._serialize import serialize_for_executorch
from executorch.exir.delegate import executorch_call_delegate
from executorch.exir.passes import MemoryPlanningPass
from executorch.exir.schema import DelegateCall, Program
from torch import Tensor, fx

from ..quiet import quiet
from .edge import edge_program
from .graph_file import graph_bytes
from .partition import Delegated, partition
from .simplify import simplify
from .xnnpack import describe, serialise

__all__ = ["Emitted", "emit"]

_BACKEND = "XnnpackBackend"
_ALIGNMENT = 16
# With any data behind the program itself, a file says its own size: every runtime refuses one that is cut short.
_MARK = {"ftte": b"ftte"}


@dataclasses.dataclass(frozen=True)
class Emitted:
    """A ``.pte``, the graph file of the same methods, and, per method, the bytes of its planned arena."""

    pte: bytes
    graph: bytes
    planned: Mapping[str, int]

    def to_bytes(self) -> bytes:
        """A line of JSON, then the files."""
        return json.dumps([len(self.pte), dict(self.planned)]).encode() + b"\n" + self.pte + self.graph

    @classmethod
    def from_bytes(cls, content: bytes) -> Emitted:
        """What :meth:`to_bytes` gave."""
        line, _, files = content.partition(b"\n")
        size, planned = json.loads(line)
        return cls(files[:size], files[size:], planned)


def emit(methods: Mapping[str, fx.GraphModule]) -> Emitted:
    """One program of several methods: name -> lowered graph."""
    with quiet(), _uncollected():
        config = EdgeCompileConfig(_check_ir_validity=False, _skip_dim_order=True)
        edge = EdgeProgramManager(
            {name: edge_program(_delegating(graph), config) for name, graph in methods.items()},
            compile_config=config,
        )
        # Inputs stay with the caller: weights are read where they lie, never copied into the arena.
        # Delegates lie in the program itself: a runtime frees segments of their own, and the constants with them.
        settings = ExecutorchBackendConfig(
            memory_planning_pass=MemoryPlanningPass(alloc_graph_input=False),
            extract_delegate_segments=False,
            delegate_alignment=_ALIGNMENT,
        )
        program = edge.to_executorch(settings)
        content = program.buffer
        if _share_delegates(program.executorch_program):
            content = _serialised(program, settings)
    planned = {plan.name: sum(plan.non_const_buffer_sizes) for plan in program.executorch_program.execution_plan}
    return Emitted(content, graph_bytes(methods), planned)


def _share_delegates(program: Program) -> bool:
    """
    Let equal delegates of a method be one, which is called several times; whether there were any.

    A runtime sets each delegate up by itself, with packed weights and a workspace of its own; for the tiles of a batch
    once is enough.
    """
    shared = False
    for plan in program.execution_plan:
        known: dict[str, int] = {}
        kept: list[Any] = []
        places: list[int] = []
        for delegate in plan.delegates:
            key = repr((delegate.id, delegate.processed, delegate.compile_specs))
            if key not in known:
                known[key] = len(kept)
                kept.append(delegate)
            places.append(known[key])
        shared |= len(kept) < len(plan.delegates)
        plan.delegates[:] = kept
        for chain in plan.chains:
            for instruction in chain.instructions:
                call = instruction.instr_args
                if isinstance(call, DelegateCall):
                    call.delegate_index = places[call.delegate_index]
    return shared


def _serialised(program: Any, settings: ExecutorchBackendConfig) -> bytes:
    """The file of a program that was changed after it was emitted."""
    content, _ = serialize_for_executorch(
        program._emitter_output, settings, program._data_serializer, program._named_data
    )
    return bytes(content)


class LoweredBackendModule(exir_lowered.LoweredBackendModule):  # type: ignore[misc]
    """
    A region as ExecuTorch knows it, by this name.

    It keeps no copy of the region: passes that run the graph get empty results.

    Args:
        content: what the backend reads.
        constants: those of its constants that have names.
        outputs: the region's results, for their shapes.

    """

    def __init__(self, content: bytes, constants: NamedDataStoreOutput, outputs: Sequence[Tensor]) -> None:
        super().__init__(_Hollow(outputs), _BACKEND, content, [], constants)
        self.meta: dict[str, Any] | None = {}

    def __deepcopy__(self, memo: Any) -> LoweredBackendModule:
        return self


class _Hollow:
    """Stands where ExecuTorch keeps the original program of a delegate."""

    def __init__(self, outputs: Sequence[Tensor]) -> None:
        self.shapes = [tuple(t.shape) for t in outputs]
        self.graph = fx.Graph()
        self.graph.output(tuple(None for _ in outputs))

    def module(self) -> Any:
        return lambda *inputs: tuple(torch.empty(shape) for shape in self.shapes)


def _delegating(graph: fx.GraphModule) -> fx.GraphModule:
    """The graph with its regions replaced by calls of delegates."""
    simplify(graph)
    root = torch.nn.Module()
    result = fx.Graph()
    made: dict[fx.Node, fx.Node] = {}
    for node in graph.graph.nodes:
        if node.op == "placeholder":
            made[node] = result.node_copy(node)
        elif node.op == "get_attr":
            root.register_buffer(str(node.target), getattr(graph, str(node.target)), persistent=False)
            made[node] = result.node_copy(node)
    for count, part in enumerate(partition(graph.graph)):
        if isinstance(part, Delegated):
            name = f"delegate_{count}"
            root.add_module(name, _delegate(part))
            _call(result, name, part, made)
        else:
            made[part] = result.node_copy(part, lambda n: made[n])
    result.node_copy(next(n for n in graph.graph.nodes if n.op == "output"), lambda n: made[n])
    result.eliminate_dead_code()
    return fx.GraphModule(root, result)


def _delegate(region: Delegated) -> LoweredBackendModule:
    content, constants = serialise(describe(region.nodes, region.inputs, region.outputs))
    store = NamedDataStore()
    for name, data in (_MARK | constants).items():
        store.add_named_data(name, data, alignment=_ALIGNMENT)
    return LoweredBackendModule(
        content, store.get_named_data_store_output(), [node.meta["val"] for node in region.outputs]
    )


def _call(graph: fx.Graph, name: str, region: Delegated, made: dict[fx.Node, fx.Node]) -> None:
    """Call the delegate ``name``; its results stand for the region's outputs from now on."""
    delegate = graph.get_attr(name)
    call = graph.call_function(executorch_call_delegate, (delegate, *[made[n] for n in region.inputs]))
    call.meta["val"] = tuple(node.meta["val"] for node in region.outputs)
    for index, node in enumerate(region.outputs):
        made[node] = graph.call_function(operator.getitem, (call, index))
        made[node].meta["val"] = node.meta["val"]


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Pause the cycle collector: with millions of graph objects alive, it takes a sixth of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
