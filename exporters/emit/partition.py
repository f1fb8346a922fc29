"""
Which parts of a lowered graph run in the delegate, and in how few pieces.

Operators that only a portable kernel has (index arithmetic, the loss) split a step into phases. Every delegated
operator gets the number of the phase in which it runs, and a phase is one delegate: there are as few of them as the
longest chain of portable operators between delegated ones demands. Within that freedom an operator runs where it stands
in the traced step: a ReLU's mask is computed in the backward pass, not carried there.

Operators of a tile of the batch (:data:`~exporters.lowering.marks.TILE`) are a delegate of their own: those of all
tiles are equal, so that a program has it once, and calls it for each (:mod:`exporters.emit.pte`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from torch import fx

from ..lowering.marks import APART, TILE, mark
from .xnnpack import constant_of, supported

__all__ = ["Delegated", "partition"]


@dataclasses.dataclass(frozen=True)
class Delegated:
    """
    A delegate: the nodes that it computes, what it reads from outside, and what is read outside.

    ``again`` says that it is another call of the delegate of the first tile.
    """

    nodes: Sequence[fx.Node]
    inputs: Sequence[fx.Node]
    outputs: Sequence[fx.Node]
    again: bool = False


def partition(graph: fx.Graph) -> list[Delegated | fx.Node]:
    """The graph's operators in an order in which they can run: delegates, and portable operators one by one."""
    phase, again = _tiled(graph, _phases(graph))
    regions = []
    for number in sorted(set(phase.values())):
        nodes = [n for n in graph.nodes if phase.get(n) == number]
        inside = set(nodes)
        inputs: dict[fx.Node, None] = {}
        for node in nodes:
            for source in node.all_input_nodes:
                if source not in inside and constant_of(source) is None:
                    inputs[source] = None
        outputs = [n for n in nodes if any(user not in inside for user in n.users)]
        regions.append(Delegated(nodes, list(inputs), outputs, number in again))
    return _ordered(graph, regions, phase)


def _tiled(graph: fx.Graph, phase: dict[fx.Node, int]) -> tuple[dict[fx.Node, int], set[int]]:
    """
    The phases with each tile as one of its own, and those that repeat that of the first tile.

    As they were, where tiles need each other.
    """
    tile = _members(graph)
    if not tile.keys() & phase.keys():
        return phase, set()
    # Within a phase: what tiles may need, the tiles, what needs tiles.
    part: dict[fx.Node, tuple[int, int, Any]] = {}
    for node in graph.nodes:
        if node not in phase:
            continue
        before = [part[s] for s in node.all_input_nodes if s in part and phase[s] == phase[node]]
        number = tile.get(node)
        if number is None:
            part[node] = (phase[node], 2 if any(rank > 0 for _, rank, _ in before) else 0, 0)
            continue
        part[node] = (phase[node], 1, number)
        if any(rank == 2 or (rank == 1 and other != number) for _, rank, other in before):
            return phase, set()
    order = {key: place for place, key in enumerate(sorted(set(part.values())))}
    again = {place for (_, rank, number), place in order.items() if rank == 1 and number > 0}
    return {node: order[key] for node, key in part.items()}, again


def _members(graph: fx.Graph) -> dict[fx.Node, Any]:
    """Operators on a tile's samples, and the tile; what a tile makes of weights alone may serve them all."""
    found: dict[fx.Node, Any] = {}
    for node in _operators(graph):
        number = mark(node, TILE)
        if number is not None and any(s in found or mark(s, APART) for s in node.all_input_nodes):
            found[node] = number
    return found


def _operators(graph: fx.Graph) -> list[fx.Node]:
    return [n for n in graph.nodes if n.op == "call_function"]


def _phases(graph: fx.Graph) -> dict[fx.Node, int]:
    """Delegated operator -> phase."""
    operators = _operators(graph)
    delegated = {n for n in operators if supported(n)}
    earliest: dict[fx.Node, int] = {}
    for node in operators:
        before = [
            earliest[s] + (node in delegated and s not in delegated) for s in node.all_input_nodes if s in earliest
        ]
        earliest[node] = max([0 if node in delegated else -1, *before])
    last = max([earliest[n] for n in delegated], default=0)
    latest: dict[fx.Node, int] = {}
    for node in reversed(operators):
        after = [latest[u] - (u in delegated and node not in delegated) for u in node.users if u in latest]
        latest[node] = min([last, *after])
    chosen: dict[fx.Node, int] = {}
    reached = 0
    for node in operators:
        before = [chosen[s] + (node in delegated and s not in delegated) for s in node.all_input_nodes if s in chosen]
        least = max([0 if node in delegated else -1, *before])
        if node in delegated:
            reached = max(reached, earliest[node])
            chosen[node] = max(least, min(reached, latest[node]))
        else:
            chosen[node] = least
    return {n: chosen[n] for n in operators if n in delegated}


def _ordered(graph: fx.Graph, regions: Sequence[Delegated], phase: dict[fx.Node, int]) -> list[Delegated | fx.Node]:
    """Regions in order, each portable operator as late as what reads it allows: results wait in the arena."""
    slot: dict[fx.Node, int] = {}
    end = len(regions)
    numbers = {number: i for i, number in enumerate(sorted(set(phase.values())))}
    for node in reversed(_operators(graph)):
        if node not in phase:
            slot[node] = min(
                [numbers[phase[u]] if u in phase else slot[u] for u in node.users if u.op != "output"], default=end
            )
    result: list[Delegated | fx.Node] = []
    for number in range(end + 1):
        result += [n for n in _operators(graph) if slot.get(n) == number and _needed(n, phase)]
        if number < end:
            result.append(regions[number])
    return result


def _needed(node: fx.Node, phase: dict[fx.Node, int]) -> bool:
    """Constants that only delegates read are inside them."""
    return constant_of(node) is None or any(user not in phase for user in node.users)
