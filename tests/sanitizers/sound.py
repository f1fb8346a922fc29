"""Sound programs of the exporter, to damage."""

from __future__ import annotations

from exporters.plan import Plan
from exporters.program.build import build
from exporters.zoo.convnets import lenet
from exporters.zoo.dense import mlp
from mobile_sdk.layout import Subset

__all__ = ["programs"]


def programs() -> dict[str, bytes]:
    """Name -> the ``.pte`` of a dense and of a convolutional net of the zoo, with all of it trained."""
    tasks = {"mlp": mlp(), "lenet": lenet()}
    return {name: build(task, Plan(Subset.whole(task.layout), 4)).pte for name, task in tasks.items()}
