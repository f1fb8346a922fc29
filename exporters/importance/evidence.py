"""What a selector may look at: the task, samples of the operator's own, a seed, and processors to work on."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch

from ..batches import Batch, tensors_of
from ..cache.journal import Journal
from ..errors import ExportError
from ..processes import Workers
from ..space import Space
from .finetune import FineTuning

__all__ = ["Evidence", "EvidenceProgress", "silent"]

Item = TypeVar("Item")
# Called with the name of a stage, how much of it is done, and of how much.
EvidenceProgress = Callable[[str, int, int], None]

_LEAST = 8  # samples on either side of the split


def silent(stage: str, done: int, total: int) -> None:
    """Nobody is watching."""


@dataclasses.dataclass
class Evidence:
    """
    Everything a selector works with.

    Args:
        space: layers and levels of the task.
        samples: proxy data ``(x, y)`` of the operator; never a device's. Without them only the example batch.
        seed: fixes every draw.
        fine_tuning: how contribution analysis trains; the seed above takes the place of its own.
        workers: where work is done in parallel.
        journal: what was worked out before.
        progress: told how far a stage is.

    """

    space: Space
    samples: tuple[Batch, Batch] | None = None
    seed: int = 0
    fine_tuning: FineTuning = dataclasses.field(default_factory=FineTuning)
    workers: Workers | None = None
    journal: Journal = dataclasses.field(default_factory=Journal)
    progress: EvidenceProgress = silent

    @property
    def example(self) -> tuple[Batch, Batch]:
        """
        The proxy samples, or the task's example batch where there are none.

        Returns:
            x of shape ``(n, *x_shape)``, y of shape ``(n, *y_shape)``, in the contract's dtypes.

        """
        return (self.space.task.example_x, self.space.task.example_y) if self.samples is None else self.samples

    @functools.cached_property
    def split(self) -> tuple[tuple[Batch, Batch], tuple[Batch, Batch]]:
        """
        Proxy samples to train on, and a third of them to judge by.

        Returns:
            Two pairs: x of shape ``(n, *x_shape)``, y of shape ``(n, *y_shape)``.

        Raises:
            ExportError: if there are too few.

        """
        if self.samples is None or len(self.samples[0]) < 3 * _LEAST:
            have = 0 if self.samples is None else len(self.samples[0])
            raise ExportError(
                f"contribution analysis fine-tunes on proxy data and has {have} samples; give the task "
                f"proxy=, or the planner --data, at least {3 * _LEAST} samples of your own or public data"
            )
        x, y = self.samples
        index = torch.randperm(len(x), generator=torch.Generator().manual_seed(self.seed))
        judged = max(len(x) // 3, _LEAST)
        train, test = index[judged:], index[:judged]
        return (x[train], y[train]), (x[test], y[test])

    @functools.cached_property
    def digest(self) -> str:
        """Hash of task, samples and settings: results are kept under it."""
        digest = hashlib.sha256(self.space.digest.encode())
        for tensor in [t for batch in self.example for t in tensors_of(batch)]:
            digest.update(repr((tensor.dtype, tuple(tensor.shape))).encode() + tensor.numpy().tobytes())
        digest.update(repr((self.seed, self.fine_tuning)).encode())
        return digest.hexdigest()

    def each(
        self, stage: str, function: Callable[[Any, Item], Any], context: Any, items: Sequence[Item], keys: Sequence[str]
    ) -> list[Any]:
        """
        ``function(context, item)`` of every item, JSON values, in order; those in the journal are not worked out again.

        Args:
            stage: what it is, for the progress.
            function: at the top level of a module, so that other processes find it.
            context: sent to every process once.
            items: sent one by one.
            keys: names of the items in the journal; unique within this evidence and stage.

        """
        names = [f"{self.digest}:{stage}:{key}" for key in keys]
        todo = [i for i, name in enumerate(names) if name not in self.journal]
        done = len(items) - len(todo)
        self.progress(stage, done, len(items))
        workers = self.workers or Workers(1)
        for i, value in workers.map(function, context, {i: items[i] for i in todo}):
            self.journal.put(names[i], value)
            done += 1
            self.progress(stage, done, len(items))
        return [self.journal.get(name) for name in names]
