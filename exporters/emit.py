"""Lowered graphs to the bytes of an ExecuTorch program, with the XNNPACK delegate."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.exir import EdgeCompileConfig, ExecutorchBackendConfig, to_edge_transform_and_lower
from executorch.exir.backend.compile_spec_schema import CompileSpec
from executorch.exir.backend.partitioner import DelegationSpec
from executorch.exir.passes import MemoryPlanningPass
from torch import Tensor, fx, nn
from torch.export import ExportedProgram

__all__ = ["Emitted", "emit"]


@dataclasses.dataclass(frozen=True)
class Emitted:
    """A ``.pte`` and, per method, the bytes of the arena that ExecuTorch planned."""

    pte: bytes
    planned: Mapping[str, int]


def emit(methods: Mapping[str, tuple[fx.GraphModule, Sequence[Tensor]]]) -> Emitted:
    """
    One program of several methods.

    Args:
        methods: name -> lowered graph and example inputs.

    """
    with _quiet():
        exported = {
            name: torch.export.export(_Positional(graph), tuple(inputs), strict=False)
            for name, (graph, inputs) in methods.items()
        }
        edge = to_edge_transform_and_lower(
            exported, partitioner=[_Partitioner()], compile_config=EdgeCompileConfig(_check_ir_validity=False)
        )
        # Inputs stay with the caller: weights are read where they lie, never copied into the arena.
        program = edge.to_executorch(
            ExecutorchBackendConfig(memory_planning_pass=MemoryPlanningPass(alloc_graph_input=False))
        )
    planned = {plan.name: sum(plan.non_const_buffer_sizes) for plan in program.executorch_program.execution_plan}
    return Emitted(program.buffer, planned)


class _Partitioner(XnnpackPartitioner):
    """
    XNNPACK, without the passes that prepare a graph for it.

    By default the graph is retraced three times to find what not to decompose, and 17 passes retrace every delegate, a
    second each; they fuse, decompose and re-tag what the lowering never emits. Naming a single pass, as this
    key does, skips the others.
    """

    def __init__(self) -> None:
        super().__init__()
        self.delegation_spec = DelegationSpec(
            self.delegation_spec.backend_id, [CompileSpec("dqlinear_partitioner", b"")]
        )

    def ops_to_not_decompose(self, ep: ExportedProgram) -> tuple[list[torch._ops.OpOverload], None]:
        return [], None


class _Positional(nn.Module):
    """``torch.export`` takes modules only."""

    def __init__(self, graph: fx.GraphModule) -> None:
        super().__init__()
        self.graph = graph

    def forward(self, *inputs: Tensor) -> Any:
        return self.graph(*inputs)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hush the exporter's warnings about itself; errors still come through."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
