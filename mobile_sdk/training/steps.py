"""
Which samples each step of a training takes, and so how long it is.

:func:`~mobile_sdk.training.train.train` follows these rules, and whoever predicts a training asks them: the simulator
takes its virtual time from :func:`count_work`.
"""

from __future__ import annotations

from collections.abc import Iterator

from .settings import TrainingSettings

__all__ = ["count_work", "micro_batches", "step_spans"]


def step_spans(samples: int, settings: TrainingSettings) -> Iterator[tuple[int, int]]:
    """
    The samples of every optimiser step, as ``(start, stop)`` in the order of its pass; ``start`` is 0 where one begins.

    Every step that :meth:`TrainingSettings.count_steps` counts is there, whatever the time limit.
    """
    left = settings.count_steps(samples)
    while left > 0:
        for start in range(0, samples, settings.batch_size):
            if left == 0:
                return
            left -= 1
            yield start, min(start + settings.batch_size, samples)


def micro_batches(count: int, size: int) -> list[tuple[int, int]]:
    """A batch of ``count`` samples, cut into parts of at most ``size``: ``(start, stop)`` of each."""
    return [(start, min(start + size, count)) for start in range(0, count, size)]


def count_work(
    samples: int, settings: TrainingSettings, *, micro_batch: int, micro_batch_seconds: float
) -> tuple[int, int]:
    """
    How much a training does on a device.

    Args:
        samples: that the device has.
        settings: what the coordinator asks for, the time limit included.
        micro_batch: samples that the program takes at once.
        micro_batch_seconds: what each micro-batch takes on that device, full or not.

    Returns:
        Optimiser steps, and micro-batches.

    """
    steps, micro = 0, 0
    for start, stop in step_spans(samples, settings):
        steps += 1
        micro += len(micro_batches(stop - start, micro_batch))
        if settings.is_over(micro * micro_batch_seconds):
            break
    return steps, micro
