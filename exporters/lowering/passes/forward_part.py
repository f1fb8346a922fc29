"""
The layers below the first trained one, a few samples at a time.

Nothing of them is kept for a backward pass, so they need the memory of one layer at once; and of that only a part,
where samples do not see each other. The step is traced a second time with fewer samples, which gives the same operators
with other sizes; the part of it that depends on neither trained weights nor targets is lowered once per tile of the
batch, and the results are put together.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx

__all__ = ["ForwardPart", "find", "with_descendants"]

_aten = torch.ops.aten
_CONVOLUTION = _aten.convolution.default
# What a call of the delegate for another tile is worth, in bytes: it takes some memory, and time.
_CALL = 20_000
# What a tile of columns and its parts take, in convolution.py.
_COLUMNS = 2 << 20


@dataclasses.dataclass(frozen=True)
class ForwardPart:
    """
    What is lowered tile by tile.

    Args:
        graph: the step traced with ``samples`` samples.
        needed: what of that graph the results need, in order: the part, constants, operators on weights alone.
        results: pairs of nodes that something outside reads: in the whole step's graph, and in ``graph``.
        whole: the part's operators in the whole step's graph.
        samples: how many a tile has.

    """

    graph: fx.GraphModule
    needed: Sequence[fx.Node]
    results: Sequence[tuple[fx.Node, fx.Node]]
    whole: frozenset[fx.Node]
    samples: int


def find(
    graph: fx.GraphModule,
    inputs: Sequence[Tensor],
    live: Sequence[int],
    asked: int | None,
    trace: Callable[[int], fx.GraphModule],
) -> ForwardPart | None:
    """
    The forward-only part of a traced step, where it is worth it: it convolves, and samples do not see each other.

    Args:
        graph: traced for the whole batch; its first input is x.
        inputs: example inputs.
        live: positions of the inputs that the part must not depend on.
        asked: samples that a tile has at most; :obj:`None` for as many as need the least memory.
        trace: gives the same step for fewer samples.

    """
    batch = inputs[0].shape[0]
    inside = _independent(graph, live)
    if not any(n.target is _CONVOLUTION for n in inside):
        return None
    samples = _leanest(graph, inside, batch) if asked is None else asked
    samples = max(d for d in range(1, samples + 1) if batch % d == 0)
    if samples == batch:
        return None
    small = trace(samples)
    pairs = list(zip(graph.graph.nodes, small.graph.nodes, strict=False))
    if len(graph.graph.nodes) != len(small.graph.nodes) or any(
        a.target != b.target for a, b in pairs if a.op != "output"
    ):
        return None
    twin = dict(pairs)
    results = _results(inside)
    while failing := [n for n in results if not _per_sample(n, twin[n], batch, samples)]:
        inside -= with_descendants(failing)
        results = _results(inside)
    if not any(n.target is _CONVOLUTION for n in inside):
        return None
    part = ForwardPart(
        small, _needed(small, [twin[n] for n in results]), [(n, twin[n]) for n in results], frozenset(inside), samples
    )
    return part if _agrees(_values(graph, _needed(graph, results), inputs), part, inputs) else None


def _needed(graph: fx.GraphModule, results: Sequence[fx.Node]) -> list[fx.Node]:
    found = set(results)
    waiting = list(results)
    while waiting:
        for source in waiting.pop().all_input_nodes:
            if source not in found:
                found.add(source)
                waiting.append(source)
    return [n for n in graph.graph.nodes if n in found and n.op != "placeholder"]


def _independent(graph: fx.GraphModule, live: Sequence[int]) -> set[fx.Node]:
    """Operators that depend on x, and on none of the live inputs."""
    placeholders = [n for n in graph.graph.nodes if n.op == "placeholder"]
    from_x = with_descendants(placeholders[:1])
    from_live = with_descendants([placeholders[i] for i in live])
    return {n for n in from_x - from_live if n.op == "call_function"}


def _leanest(graph: fx.GraphModule, inside: set[fx.Node], batch: int) -> int:
    """
    Samples per tile for the least memory, by estimate.

    Fewer samples make smaller activations. The delegate's bookkeeping and packed weights are there once, whatever the
    tiles, since tiles are equal; only what stands between them is there for each.
    """
    live = 0
    for node in inside:
        tensors = [n.meta.get("val") for n in (node, *node.all_input_nodes) if n in inside or n is node]
        size = sum(t.numel() * t.element_size() for t in tensors if isinstance(t, Tensor))
        if node.target is _CONVOLUTION:
            image, w = node.args[0].meta["val"], node.args[1]  # type: ignore[union-attr]
            if w.op == "get_attr":  # type: ignore[union-attr]
                size += 4 * image.numel()
            else:
                taps = math.prod(w.meta["val"].shape[2:])  # type: ignore[union-attr]
                size += 4 * image.numel() + min(_COLUMNS, 8 * image.numel() * taps)
        live = max(live, size)
    divisors = [d for d in range(1, batch + 1) if batch % d == 0]
    return min(divisors, key=lambda d: live * d // batch + _CALL * (batch // d))


def with_descendants(nodes: Sequence[fx.Node]) -> set[fx.Node]:
    """Nodes, and all that depend on them."""
    found = set(nodes)
    waiting = list(nodes)
    while waiting:
        for user in waiting.pop().users:
            if user not in found:
                found.add(user)
                waiting.append(user)
    return found


def _results(inside: set[fx.Node]) -> list[fx.Node]:
    return [n for n in inside if any(user not in inside for user in n.users)]


def _per_sample(whole: fx.Node, tile: fx.Node, batch: int, samples: int) -> bool:
    shapes = [n.meta.get("val") for n in (whole, tile)]
    if not all(isinstance(v, Tensor) and v.dim() for v in shapes):
        return False
    first, second = (tuple(v.shape) for v in shapes)  # type: ignore[union-attr]
    return bool(first[0] == batch and second == (samples, *first[1:]))


def _agrees(whole: Mapping[fx.Node, Any], part: ForwardPart, inputs: Sequence[Tensor]) -> bool:
    """Whether tiles give what the whole batch gives, on the example: batch statistics, for one, do not."""
    for start in range(0, inputs[0].shape[0], part.samples):
        tile = _values(part.graph, part.needed, [inputs[0][start : start + part.samples], *inputs[1:]])
        for node, twin in part.results:
            expected = whole[node][start : start + part.samples].double()
            tolerance = 1e-4 * float(expected.abs().max()) + 1e-6
            if float((tile[twin].double() - expected).abs().max()) > tolerance:
                return False
    return True


def _values(graph: fx.GraphModule, nodes: Sequence[fx.Node], inputs: Sequence[Tensor]) -> dict[fx.Node, Any]:
    placeholders = (n for n in graph.graph.nodes if n.op == "placeholder")
    # An operator in place must not write to the caller's tensors.
    values: dict[fx.Node, Any] = dict(zip(placeholders, [t.clone() for t in inputs], strict=True))
    for node in nodes:
        if node.op == "get_attr":
            values[node] = getattr(graph, str(node.target)).clone()
        else:
            args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda n: values[n])
            values[node] = node.target(*args, **kwargs)  # type: ignore[operator]
    return values
