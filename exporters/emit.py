"""Lowered graphs to the bytes of an ExecuTorch program, with the XNNPACK delegate."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from executorch.backends.xnnpack.partition.config import ALL_PARTITIONER_CONFIGS, ViewCopyConfig
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.exir import EdgeCompileConfig, EdgeProgramManager, ExecutorchBackendConfig
from executorch.exir.backend.compile_spec_schema import CompileSpec
from executorch.exir.backend.partitioner import DelegationSpec
from executorch.exir.passes import MemoryPlanningPass
from torch import Tensor, fx, nn

from .edge import edge_program
from .quiet import quiet

__all__ = ["Emitted", "emit"]


@dataclasses.dataclass(frozen=True)
class Emitted:
    """A ``.pte`` and, per method, the bytes of the arena that ExecuTorch planned."""

    pte: bytes
    planned: Mapping[str, int]

    def to_bytes(self) -> bytes:
        """A line of JSON, then the program."""
        return json.dumps(dict(self.planned)).encode() + b"\n" + self.pte

    @classmethod
    def from_bytes(cls, content: bytes) -> Emitted:
        """What :meth:`to_bytes` gave."""
        planned, _, pte = content.partition(b"\n")
        return cls(pte, json.loads(planned))


def emit(methods: Mapping[str, tuple[fx.GraphModule, Sequence[Tensor]]]) -> Emitted:
    """
    One program of several methods.

    Args:
        methods: name -> lowered graph and example inputs.

    """
    with quiet(), _uncollected():
        exported = {
            name: torch.export.export(_Positional(graph), tuple(inputs), strict=False)
            for name, (graph, inputs) in methods.items()
        }
        config = EdgeCompileConfig(_check_ir_validity=False, _skip_dim_order=True)
        edge = EdgeProgramManager(
            {name: edge_program(program, config) for name, program in exported.items()},
            compile_config=config,
        ).to_backend(_partitioner())
        # Inputs stay with the caller: weights are read where they lie, never copied into the arena.
        program = edge.to_executorch(
            ExecutorchBackendConfig(memory_planning_pass=MemoryPlanningPass(alloc_graph_input=False))
        )
    planned = {plan.name: sum(plan.non_const_buffer_sizes) for plan in program.executorch_program.execution_plan}
    return Emitted(program.buffer, planned)


class _InnerViews(ViewCopyConfig):  # type: ignore[misc]
    """
    Views of inputs stay outside the delegate.

    Inside, a view of an external tensor is a copy; outside, ExecuTorch makes it a pointer. Weights are such inputs.
    """

    def check_constraints(self, node: fx.Node, ep: torch.export.ExportedProgram) -> bool:
        source = node.args[0]
        outer = isinstance(source, fx.Node) and source.op == "placeholder"
        return not outer and bool(super().check_constraints(node, ep))


def _partitioner() -> XnnpackPartitioner:
    """
    XNNPACK, without the passes that prepare a graph for it.

    By default 17 passes retrace every delegate; they fuse, decompose and re-tag what the lowering never emits.
    Naming a single one, as this key does, skips the others.
    """
    configs = [_InnerViews if config is ViewCopyConfig else config for config in ALL_PARTITIONER_CONFIGS]
    partitioner = XnnpackPartitioner(configs)
    partitioner.delegation_spec = DelegationSpec(
        partitioner.delegation_spec.backend_id, [CompileSpec("dqlinear_partitioner", b"")]
    )
    return partitioner


class _Positional(nn.Module):
    """``torch.export`` takes modules only."""

    def __init__(self, graph: fx.GraphModule) -> None:
        super().__init__()
        self.graph = graph

    def forward(self, *inputs: Tensor) -> Any:
        return self.graph(*inputs)


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
