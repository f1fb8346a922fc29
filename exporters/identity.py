"""
What makes a task the same task: its parameters, its data and its code, as JSON values that can be compared.

Comparing needs no torch; what identifying needs is imported by it.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mobile_sdk.version import __version__

from .source_files import file_hashes

if TYPE_CHECKING:
    from .task import Task

__all__ = ["differences", "identify", "identify_reference"]


def identify_reference(reference: str) -> dict[str, Any]:
    """
    Load the task at ``package.module:task`` and identify it; with ``files``, the hashes of the user's sources.

    Raises:
        TaskError: if it cannot be loaded.

    """
    from .task import load_task

    task = load_task(reference)
    return {**identify(task), "files": file_hashes(reference)}


def identify(task: Task) -> dict[str, Any]:
    """
    The identity of a task, as JSON values.

    ``code`` is a hash of model, loss and metrics without the weights, empty where the code cannot be vouched for;
    it can be compared only where ``runtime`` is the same.
    """
    import torch

    from .cache.fingerprint import Unknown, fingerprint
    from .plan import Plan

    try:
        code = fingerprint(task, Plan.everything(task, task.micro_batch))
    except (Unknown, RecursionError):
        code = ""
    contract = task.contract
    return {
        "parameters": {p.name: list(p.shape) for p in task.layout},
        "x": [list(contract.x_shape), contract.x_dtype],
        "y": [list(contract.y_shape), contract.y_dtype],
        "metrics": sorted(task.metrics),
        "labels": list(contract.labels),
        "local": list(task.local),
        "micro_batch": task.micro_batch,
        "code": code,
        "runtime": f"ftte {__version__}, Python {sys.version}, torch {torch.__version__}",
    }


def differences(recorded: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What has changed from one identity to another: a few words for each thing; empty if nothing did."""
    words = []
    before, after = recorded["parameters"], now["parameters"]
    if before != after:
        name = next(n for n in [*before, *after] if before.get(n) != after.get(n))
        words.append(f"parameter {name!r} had the shape {_shape(before.get(name))} and has {_shape(after.get(name))}")
    for key in ("x", "y"):
        if recorded[key] != now[key]:
            (shape, dtype), (new_shape, new_dtype) = recorded[key], now[key]
            words.append(f"{key} was {dtype} of shape {_shape(shape)} and is {new_dtype} of shape {_shape(new_shape)}")
    for key in ("metrics", "labels", "local", "micro_batch"):
        if recorded[key] != now[key]:
            words.append(f"{key} was {recorded[key]} and is {now[key]}")
    comparable = recorded["code"] and now["code"] and recorded["runtime"] == now["runtime"]
    if not words and comparable and recorded["code"] != now["code"]:
        words.append("the code of its model, loss or metrics is another")
    return words


def _shape(shape: list[int] | None) -> str:
    return "none" if shape is None else str(tuple(shape))
