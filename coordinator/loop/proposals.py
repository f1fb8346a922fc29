"""What a merge would give, before anybody decides whether it becomes a version."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from mobile_sdk.layout import Vector
from mobile_sdk.training.evaluation import finite

from ..merge.merger import MergeResult
from ..run_state import RunState
from ..scheduling.dispatcher import Dispatcher
from ..updates.buffer import BufferedUpdate
from .merging import Merging

__all__ = ["EvaluateWeights", "Proposal", "Proposals"]

EvaluateWeights = Callable[[Vector], Mapping[str, float]]


@dataclasses.dataclass(frozen=True)
class Proposal:
    """
    A version that could be published.

    Args:
        updates: what it is made of.
        result: of their merge.
        vector: all weights, float32 of the layout's size.
        metrics: of ``vector`` on held-out data, finite ones only; empty without held-out data.
        evaluated: whether there was an evaluation: not every version has one where somebody asks for fewer.

    """

    updates: Sequence[BufferedUpdate]
    result: MergeResult
    vector: Vector
    metrics: Mapping[str, float]
    evaluated: bool = True


class Proposals:
    """
    Merges and evaluates, and changes nothing of the run.

    Args:
        run: gives the weights that are merged into.
        merging: the merges of the run.
        dispatcher: knows how many devices are at work.
        evaluate: central evaluation; none: proposals have no metrics.

    """

    def __init__(
        self, run: RunState, merging: Merging, dispatcher: Dispatcher, evaluate: EvaluateWeights | None
    ) -> None:
        self._run = run
        self._merging = merging
        self._dispatcher = dispatcher
        self._evaluate = evaluate

    async def propose(self, updates: Sequence[BufferedUpdate]) -> Proposal:
        """Merge ``updates`` and evaluate what comes out."""
        run = self._run
        result = await run.offload(self._merging.merge, updates, len(self._dispatcher.scheduler.working))
        vector = run.versions.with_trained(result.weights)
        metrics = {} if self._evaluate is None else await run.offload(self._evaluate, vector)
        return Proposal(updates, result, vector, finite(metrics), bool(metrics))
