"""
From a lowered graph to a program in ExecuTorch's edge dialect, by editing the graph in place.

``torch.export`` would trace the graph once more, and ``to_edge`` runs a dozen passes that each trace it anew, for
operators that the lowering never emits; together they took two thirds of an export. Two things matter here: numbers
become constant tensors, and operators their copying counterparts of the edge dialect.
"""

from __future__ import annotations

from typing import Any

import torch
from executorch.exir import EdgeCompileConfig
from executorch.exir.passes.replace_aten_with_edge_pass import aten_to_edge, should_lower_to_edge
from executorch.exir.program._program import lift_constant_tensor_pass
from executorch.exir.verification.verifier import EXIREdgeDialectVerifier
from torch import fx
from torch._export.passes.replace_view_ops_with_view_copy_ops_pass import get_view_copy_of_view_op, is_view_op
from torch.export import ExportedProgram, ModuleCallEntry, ModuleCallSignature
from torch.export.graph_signature import (
    ExportGraphSignature,
    InputKind,
    InputSpec,
    OutputKind,
    OutputSpec,
    TensorArgument,
)
from torch.utils import _pytree as pytree

__all__ = ["edge_program"]


def edge_program(module: fx.GraphModule, config: EdgeCompileConfig) -> ExportedProgram:
    """The graph, whose operators are functional and elementary, in the edge dialect; the argument is used up."""
    _numbers_to_tensors(module)
    for node in module.graph.nodes:
        if node.op == "call_function" and should_lower_to_edge(node.target):
            node.target = aten_to_edge(_copying(node.target))
    module.graph.eliminate_dead_code()
    module.recompile()
    names = [n.name for n in module.graph.nodes if n.op == "placeholder"]
    results: Any = next(n for n in module.graph.nodes if n.op == "output").args[0]
    _, inputs = pytree.tree_flatten((tuple(names), {}))
    _, outputs = pytree.tree_flatten(tuple(results))
    edge = ExportedProgram(
        root=module,
        graph=module.graph,
        graph_signature=ExportGraphSignature(
            [InputSpec(InputKind.USER_INPUT, TensorArgument(name), None) for name in names],
            [OutputSpec(OutputKind.USER_OUTPUT, TensorArgument(node.name), None) for node in results],
        ),
        state_dict={},
        range_constraints={},
        module_call_graph=[ModuleCallEntry("", ModuleCallSignature([], [], inputs, outputs))],
        verifiers=[EXIREdgeDialectVerifier(edge_compile_config=config, class_only=True)],
    )
    lifted: ExportedProgram = lift_constant_tensor_pass(edge)
    return lifted


def _copying(operator: torch._ops.OpOverload) -> torch._ops.OpOverload:
    """``view_copy`` for ``view``, as which ``torch.export`` records it; the edge dialect has no aliases."""
    return get_view_copy_of_view_op(operator._schema) or operator if is_view_op(operator._schema) else operator


def _numbers_to_tensors(module: fx.GraphModule) -> None:
    """Where a schema asks for a tensor, a kernel cannot take a number. Equal numbers share a constant."""
    known: dict[tuple[type, float], fx.Node] = {}
    first = next(iter(module.graph.nodes))

    def constant(number: float) -> fx.Node:
        key = (type(number), number)
        if key not in known:
            name = f"_number_{len(known)}"
            module.register_buffer(name, torch.tensor(number), persistent=False)
            with module.graph.inserting_before(first):
                known[key] = module.graph.get_attr(name)
        return known[key]

    for node in list(module.graph.nodes):
        if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):
            continue
        for at, (argument, value) in enumerate(zip(node.target._schema.arguments, node.args, strict=False)):
            if isinstance(argument.type, torch.TensorType) and isinstance(value, int | float):
                # A whole number among floats would be an int64 constant, which the delegate does not take.
                node.update_arg(at, constant(float(value) if node.meta["val"].is_floating_point() else value))
