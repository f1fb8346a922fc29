"""Measurements of plans, each made once, and the prediction that learns from them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from ..cache import store as cache
from ..importance.evidence import Evidence
from ..memory.measure import measure
from ..plan import Plan, frozen_in_all
from ..program.build import build
from ..space import BIAS, FROZEN, Levels, Space
from .memory_model import MemoryModel

__all__ = ["Measurements"]

# Measurements repeat within about one percent and some pages; a plan must fit whenever it is measured.
_MARGIN = 1.02
_PAGES = 16_384

# Levels, or None for every parameter of the task; the micro-batch; and how many samples the frozen start of the net
# takes at a time (None: the exporter's choice).
_Item = tuple[Levels | None, int, int | None]


class Measurements:
    """
    Bytes that plans need: measured growth with a margin for repetition.

    Args:
        evidence: space, processors and journal.
        baked: names of frozen weights that are inside the programs, since no plan of the run trains them; where
            :obj:`None`, each plan stands alone and has what it freezes itself inside.

    """

    def __init__(self, evidence: Evidence, baked: Sequence[str] | None = None) -> None:
        self.baked = None if baked is None else tuple(baked)
        self.model = MemoryModel(evidence.space)
        self._evidence = evidence
        self._known: dict[_Item, int] = {}
        self._forward: dict[int, int | None] = {}
        self._calibrated = False

    def __call__(self, levels: Levels, micro_batch: int) -> int:
        """What the plan at ``levels`` needs."""
        return self._measure([(levels, micro_batch, self._forward_batch(micro_batch))])[0]

    def plan(self, levels: Levels, micro_batch: int) -> Plan:
        """The plan that is measured for ``levels``."""
        return _plan(self._evidence.space, (levels, micro_batch, self._forward_batch(micro_batch)), self.baked)

    def everything(self, micro_batch: int) -> int:
        """What training every parameter needs."""
        return self._measure([(None, micro_batch, None)])[0]

    def calibrate(self, micro_batch: int) -> None:
        """Measure a few plans that differ in what they take, so that the others can be predicted."""
        if self._calibrated:  # sizes are proportional to the micro-batch: once is enough
            return
        self._calibrated = True
        space = self._evidence.space
        spread = [space.last(1), _sparse(space), space.last(max(len(space) // 2, 1))]
        spread = [levels for plan in spread if any(levels := self._without_baked(plan))]
        forward = self._forward_batch(micro_batch)
        self._measure([(levels, micro_batch, forward) for levels in dict.fromkeys(spread)])

    def _forward_batch(self, micro_batch: int) -> int | None:
        """
        The forward micro-batch of the frozen first layers that minimises memory when only the last layer is trained.

        A smaller one needs less for activations and more for what each pass over the frozen layers prepares.
        """
        if micro_batch not in self._forward:
            last = self._evidence.space.last(1)
            ways = [None, micro_batch] if micro_batch > 1 else [None]
            needs = self._measure([(last, micro_batch, way) for way in ways])
            self._forward[micro_batch] = ways[needs.index(min(needs))]
        return self._forward[micro_batch]

    def _without_baked(self, levels: Levels) -> Levels:
        """The same, with layers frozen that no plan of the run trains: their weights are inside."""
        inside = frozenset(self.baked or ())
        layers = zip(self._evidence.space.layers, levels, strict=True)
        return tuple(FROZEN if inside & layer.trained(level).keys() else level for layer, level in layers)

    def _measure(self, items: list[_Item]) -> list[int]:
        new = [item for item in items if item not in self._known]
        if new:
            exporter = cache.key("measured", repr(self.baked))[:16]
            keys = [
                f"{exporter}:{size}:{forward}:{'all' if levels is None else ''.join(map(str, levels))}"
                for levels, size, forward in new
            ]
            found = self._evidence.each("measuring memory", _bytes, (self._evidence.space, self.baked), new, keys)
            for item, size in zip(new, found, strict=True):
                self._known[item] = int(size * _MARGIN) + _PAGES
                if item[0] is not None and item[2] == self._forward.get(item[1], item[2]):
                    self.model.learn(item[0], item[1], self._known[item])
        return [self._known[item] for item in items]


def _bytes(context: tuple[Space, tuple[str, ...] | None], item: _Item) -> int:
    space, baked = context
    plan = Plan.everything(space.task, item[1]) if item[0] is None else _plan(space, item, baked)
    return measure(build(space.task, plan, ("train_step",))).total_bytes


def _plan(space: Space, item: _Item, baked: tuple[str, ...] | None) -> Plan:
    levels, micro_batch, forward = item
    assert levels is not None
    plan = dataclasses.replace(space.plan(levels, micro_batch), forward_batch=forward)
    return plan.bake(frozen_in_all(space.task, [plan]) if baked is None else baked)


def _sparse(space: Space) -> Levels:
    """All biases, and a slice of every third layer."""
    levels = []
    for i, layer in enumerate(space.layers):
        if i % 3 == 1 and len(layer.levels) > 2:
            levels.append(layer.levels[-2])
        else:
            levels.append(BIAS if BIAS in layer.levels else FROZEN)
    levels[-1] = space.layers[-1].levels[-1]
    return tuple(levels)
