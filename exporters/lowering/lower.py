"""Walk the traced graph and apply each operator's rewrite."""

from __future__ import annotations

import functools
import operator
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch._decomp import core_aten_decompositions, decomposition_table
from torch.fx import traceback
from torch.fx.experimental.proxy_tensor import make_fx

from ..errors import ExportError
from .choices import chosen
from .errors import Unsupported
from .marks import APART, FORWARD, MODULE, TILE
from .passes.fold_baked import fold
from .passes.forward_part import ForwardPart, with_descendants
from .passes.gradient_slices import narrow
from .refusals import of_unknown_size, refusal, where
from .registry import REWRITES
from .rewrites import (
    activations,
    convolution,
    elementwise,
    embeddings,
    indexing,
    linear_maps,
    losses,
    normalisation,
    pooling,
    portable,
    products,
    reductions,
    shapes,
)
from .rewrites.convolution import tile_limit
from .values import Value, cat, slice_axis

__all__ = ["FAMILIES", "decompositions", "lower", "prepare"]

FAMILIES = (
    activations,
    convolution,
    elementwise,
    embeddings,
    indexing,
    linear_maps,
    losses,
    normalisation,
    pooling,
    portable,
    products,
    reductions,
    shapes,
)


_INDEX = torch.ops.aten.index.Tensor
# Operators that give their argument under another name.
_SAME = (torch.ops.aten.detach.default, torch.ops.aten.alias.default)
# Programs draw no random numbers; dropout reaches the graph as one of these.
_RANDOM = (
    "bernoulli", "bernoulli_", "exponential", "exponential_", "multinomial", "native_dropout", "normal", "normal_",
    "normal_functional", "poisson", "rand", "rand_like", "randint", "randint_like", "randn", "randn_like", "randperm",
    "rrelu_with_noise", "rrelu_with_noise_functional", "uniform", "uniform_",
)  # fmt: skip


def decompositions() -> dict[Any, Any]:
    """What the tracer should take apart: ATen's core decompositions, except where a rewrite is better."""
    return {op: rule for op, rule in _all_decompositions().items() if op not in REWRITES and _name(op) not in _RANDOM}


@functools.cache
def _all_decompositions() -> Mapping[Any, Any]:
    # Beyond ATen's core, what has neither a rewrite nor a kernel is taken apart as far as there is a rule.
    further = {op: rule for op, rule in decomposition_table.items() if not rule.__module__.startswith("torch._refs")}
    return {**further, **core_aten_decompositions()}  # putting it together takes a sixth of a small build


def prepare(graph: fx.GraphModule) -> fx.GraphModule:
    """Rewrites of a traced step that look at more than one operator; the graph itself, edited."""
    fold(graph)
    narrow(graph)
    return graph


def lower(
    graph: fx.GraphModule,
    inputs: Sequence[Tensor],
    choices: Mapping[str, str] | None = None,
    part: ForwardPart | None = None,
) -> fx.GraphModule:
    """
    Rewrite a traced step.

    Args:
        graph: traced with :func:`decompositions`, its nodes tagged with :data:`MODULE`, and prepared.
        inputs: example inputs of the graph.
        choices: module -> one of :data:`exporters.plan.CHOICES`.
        part: what of it runs tile by tile.

    Returns:
        A graph of the same inputs and outputs, contiguous, in the natural axis order.

    Raises:
        ExportError: if an operator has no rewrite, with its name and its module's.

    """

    def run(*tensors: Tensor) -> tuple[Tensor, ...]:
        rewriter = _Rewriter(graph, choices or {}, part)
        results = rewriter.run(*[Value(t) for t in tensors])
        return tuple(r.natural() for r in results)

    with traceback.preserve_node_meta():  # operators keep the name of their module
        lowered = make_fx(run, tracing_mode="fake", _allow_non_fake_inputs=True)(*inputs)
    _share_constants(lowered.graph)
    lowered.graph.eliminate_dead_code()
    lowered.recompile()
    return lowered


def _share_constants(graph: fx.Graph) -> None:
    """Make each constant tensor once: rewrites ask for their own ones to sum with."""
    known: dict[Any, fx.Node] = {}
    for node in list(graph.nodes):
        if node.op != "call_function" or node.all_input_nodes:
            continue
        first = known.setdefault((node.target, repr(node.args), repr(node.kwargs)), node)
        if first is not node:
            node.replace_all_uses_with(first)
            graph.erase_node(node)


def _results(graph: fx.Graph) -> set[fx.Node]:
    """What the step returns, and what its results are other names of."""
    found = set(next(o for o in graph.nodes if o.op == "output").all_input_nodes)
    for node in reversed(graph.nodes):
        if node in found and node.target in _SAME and len(node.all_input_nodes[0].users) == 1:
            found.add(node.all_input_nodes[0])
    return found


class _Rewriter(fx.Interpreter):
    """Runs the traced graph on values instead of tensors."""

    def __init__(
        self,
        graph: fx.GraphModule,
        choices: Mapping[str, str],
        part: ForwardPart | None = None,
        tile: int | None = None,
    ) -> None:
        super().__init__(graph)
        self.tile = tile
        self.choices = choices
        self.part = part
        self.extra_traceback = False  # an ExportError is one sentence for the user
        self.inputs: list[Value] = []
        self.tiled: dict[fx.Node, Value] | None = None
        skipped = part.whole if part is not None else ()
        self.tile_bytes = tile_limit(n for n in graph.graph.nodes if n not in skipped)
        self.results = _results(graph.graph)

    def run_node(self, n: fx.Node) -> Any:
        result = self._rewritten(n)
        if n in self.results and isinstance(result, Value):
            result.natural()  # as it is wanted in the end, at once: else both orders are kept till then
        return result

    def _rewritten(self, n: fx.Node) -> Any:
        custom = n.meta.get("custom", {})
        traceback.current_meta["custom"] = custom if self.tile is None else {**custom, TILE: self.tile}
        if self.part is not None and n in self.part.whole:
            if self.tiled is None:
                self.tiled = self._tiles(self.part)
            return self.tiled.get(n)
        if n.op != "call_function" or n.target is operator.getitem:
            result = super().run_node(n)
            if n.op == "placeholder":
                self.inputs.append(result)
            return _constant(result) if n.op == "get_attr" else result
        target = n.target
        rewrite = REWRITES.get(target) if isinstance(target, torch._ops.OpOverload) else None
        if _of_unknown_size(n) and not self._by_constants(n):
            raise ExportError(of_unknown_size(target, _module(n)))
        if rewrite is None:
            raise ExportError(refusal(n.target, _module(n)))
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        try:
            with chosen(self.choices.get(_path(n), "tiled"), self.tile_bytes):
                result = rewrite(*args, **kwargs)
        except Unsupported as reason:
            raise ExportError(f"{where(_module(n))}: {reason}") from reason
        return result

    def _by_constants(self, node: fx.Node) -> bool:
        """Whether what is chosen by a mask is chosen by one that is a constant of the program, or follows from such."""
        if node.target is not _INDEX:
            return torch.Tag.dynamic_output_shape not in getattr(node.target, "tags", ())
        indices: Any = node.args[1]
        return all(i is None or self.env[i].constant is not None for i in indices)

    def _tiles(self, part: ForwardPart) -> dict[fx.Node, Value]:
        """The results of the forward-only part, each put together from those of its tiles."""
        x, *others = self.inputs
        batch = x.shape[0]
        pieces: list[list[Value]] = []
        whole = x.natural()
        places = [n for n in part.graph.graph.nodes if n.op == "placeholder"]
        samples = with_descendants(places[:1])
        # What is made of weights alone is made once.
        once = _Rewriter(part.graph, self.choices)
        once.env = dict(zip(places[1:], others, strict=True))
        for node in part.needed:
            if node not in samples:
                once.env[node] = once.run_node(node)
        for number, start in enumerate(range(0, batch, part.samples)):
            # Where it begins differs from tile to tile: outside, so that the tiles are equal.
            traceback.current_meta["custom"] = {APART: True}
            tile = Value(slice_axis(whole, 0, start, part.samples))
            walk = _Rewriter(part.graph, self.choices, tile=number)
            walk.env = {**once.env, places[0]: tile}
            for node in part.needed:
                if node in samples:
                    walk.env[node] = walk.run_node(node)
            pieces.append([walk.env[twin] for _, twin in part.results])
        joined = {}
        traceback.current_meta["custom"] = {}
        for (node, _), parts in zip(part.results, zip(*pieces, strict=True), strict=True):
            order = parts[0].order
            joined[node] = Value(cat([p.arranged(order) for p in parts], order.index(0)), order)
        return joined


def _of_unknown_size(node: fx.Node) -> bool:
    """Whether the data decide the shape of what the node gives."""
    value = node.meta.get("val")
    return any(
        isinstance(size, torch.SymInt)
        for tensor in (value if isinstance(value, tuple | list) else (value,))
        if isinstance(tensor, Tensor)
        for size in tensor.shape
    )


def _constant(tensor: Tensor) -> Value:
    value = Value(tensor)
    value.constant = tensor
    return value


def _module(node: fx.Node) -> str:
    return str(node.meta.get("custom", {}).get(MODULE, ""))


def _path(node: fx.Node) -> str:
    """As plans name modules: the model's own is empty."""
    name = _module(node)
    return "" if name == FORWARD else name


def _name(target: Any) -> str:
    return str(target).removeprefix("aten.").split(".")[0]
