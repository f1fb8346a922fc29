"""
What a training step will take, without emitting or running it.

Everything follows from the lowered graph: its regions become delegates whose workspaces are planned as XNNPACK plans
them, what passes between regions lies in an arena that is planned as ExecuTorch plans it, and the rest is the plan's.
Agrees with :func:`exporters.memory.measure.measure` within a tenth or 1 MB, whichever is more, on every task of the
zoo.
"""

from __future__ import annotations

import math

from torch import fx

from ..batches import tensors_of
from ..emit.partition import Delegated, partition
from ..emit.simplify import simplify
from ..emit.xnnpack import describe
from ..plan import Plan
from ..program.build import lowered
from ..program.step import Step
from ..task import Task
from .arena import Block, arena
from .footprint import Footprint
from .workspace import packed, workspace

__all__ = ["predict", "predict_lowered"]

# Fitted to measurements of the zoo: what a loaded program takes, and what each of XNNPACK's operators.
_BASE = 200_000
_OPERATOR = 1_250


def predict(task: Task, plan: Plan) -> Footprint:
    """
    The memory of a plan's training step: traces and lowers it, which takes a second or two.

    Raises:
        ExportError: if the task cannot be lowered.

    """
    step = Step(task, plan)
    return predict_lowered(lowered(step, "train_step"), step)


def predict_lowered(graph: fx.GraphModule, step: Step) -> Footprint:
    """The memory of the lowered ``train_step`` of ``step``; the graph is simplified in place."""
    simplify(graph)
    parts = partition(graph.graph)
    delegates = [describe(p.nodes, p.inputs, p.outputs) for p in parts if isinstance(p, Delegated) and not p.again]
    shared = max((workspace(delegate) for delegate in delegates), default=0)
    operators = sum(len(delegate.operators) for delegate in delegates)
    baked = sum(packed(delegate) for delegate in delegates)
    task, subset = step.task, step.plan.subset
    x, y = task.batch(step.plan.micro_batch)
    masks = sum(4 * math.prod(draw.shape) for draw in step.draws)
    compact = 4 * subset.size
    trained = sum(4 * task.layout[name].size for name in subset)
    return Footprint(
        arena_bytes=max(0, _arena(parts, graph.graph) - compact),
        # An update is computed one tensor at a time, beside its gradient.
        workspace_bytes=shared
        + baked
        + _BASE
        + _OPERATOR * operators
        + max(4 * math.prod(subset.shape(n)) for n in subset),
        trained_bytes=trained,
        gradient_bytes=compact,
        optimiser_bytes=compact,
        batch_bytes=sum(t.nbytes for t in (*tensors_of(x), *tensors_of(y))) + 4 * step.plan.micro_batch + masks,
        mapped_bytes=sum(4 * task.layout[n].size for n in step.order if n not in subset),
        idle_bytes=0,
    )


def _arena(parts: list[Delegated | fx.Node], graph: fx.Graph) -> int:
    """Tensors that pass between parts. A portable view has no memory of its own: it keeps what it views alive."""
    blocks: dict[fx.Node, Block] = {}
    owner: dict[fx.Node, fx.Node] = {}

    def read(node: fx.Node, step: int) -> None:
        node = owner.get(node, node)
        if node in blocks:
            blocks[node].last = step

    for step, part in enumerate(parts):
        sources = part.inputs if isinstance(part, Delegated) else part.all_input_nodes
        for source in sources:
            read(source, step)
        if isinstance(part, fx.Node) and "view" in str(part.target):
            owner[part] = owner.get(sources[0], sources[0])
            continue
        for node in part.outputs if isinstance(part, Delegated) else [part]:
            value = node.meta["val"]
            blocks[node] = Block(-(-math.prod(value.shape) * value.element_size() // 16) * 16, step, step)
    for node in next(n for n in graph.nodes if n.op == "output").all_input_nodes:
        read(node, len(parts))
    return arena(list(blocks.values()))
