"""From the SDK's events to what the screens show."""

from __future__ import annotations

import math
from collections.abc import Mapping

from mobile_sdk import events
from mobile_sdk.events import Event
from mobile_sdk.manifest import Manifest

from ..status import Layer, Phase, Status

__all__ = ["apply", "given"]

# As many points as a plot on a small screen can tell apart.
_LOSSES = 240
_VERSIONS = 400


def apply(event: Event, status: Status) -> None:
    """Change ``status`` by what happened."""
    match event:
        case events.Connected():
            status.phase, status.reason, status.retry_seconds = Phase.WAITING, "", 0.0
            status.device, status.version, status.newest = event.device, event.version, event.version
        case events.Disconnected():
            status.phase, status.reason, status.retry_seconds = Phase.CONNECTING, event.reason, event.retry_seconds
        case events.Paused():
            status.phase, status.reason = Phase.PAUSED, event.reason
        case events.Assigned():
            status.phase, status.reason, status.version = Phase.DOWNLOADING, "", event.version
            status.download = status.training = status.upload = (0, 0)
        case events.Downloading():
            status.phase, status.download = Phase.DOWNLOADING, (event.received, event.size)
        case events.Training():
            status.phase, status.training = Phase.TRAINING, (event.step, event.steps)
            status.losses = [*status.losses, event.loss][-_LOSSES:]
        case events.Postponed() | events.Waiting():
            status.phase, status.reason = Phase.WAITING, event.reason
        case events.Personal():
            status.global_accuracy = event.global_metrics.get("accuracy", -1.0)
            status.personal_accuracy = event.personal_metrics.get("accuracy", -1.0)
        case events.Uploading():
            status.phase, status.upload = Phase.UPLOADING, (event.sent, event.size)
        case events.UpdateAccepted():
            status.phase = Phase.WAITING
            status.updates += 1
            status.bytes_up += event.cost.bytes_up
            status.bytes_down += event.cost.bytes_down
            # What the trip would have moved as float32 of the whole model, down and up.
            status.bytes_dense += 2 * 4 * sum(layer.size for layer in status.layers)
            status.cpu_seconds += event.cost.cpu_seconds
        case events.UpdateRejected() | events.Declined():
            status.phase, status.reason = Phase.WAITING, event.reason
        case events.Merged():
            status.merged += 1
            status.staleness, status.weight = event.staleness, event.weight
        case events.Announced():
            status.newest, status.devices = event.version, event.devices
            _accuracy(status, event.version, event.metrics)
        case events.RunFinished():
            status.phase, status.reason, status.newest = Phase.FINISHED, event.reason, event.version
            _accuracy(status, event.version, event.metrics)


def _accuracy(status: Status, version: int, metrics: Mapping[str, float]) -> None:
    known = status.accuracies
    if "accuracy" in metrics and (not known or known[-1][0] < version):
        status.accuracies = [*known, (version, metrics["accuracy"])][-_VERSIONS:]


def given(manifest: Manifest, status: Status) -> None:
    """What this phone was given to train: the layers of the model, and how much of each."""
    layers: dict[str, Layer] = {}
    for parameter in manifest.layout:
        name = parameter.name.rpartition(".")[0] or parameter.name
        layer = layers.get(name, Layer(name, 0, 0))
        local = parameter.name in manifest.local
        trained = parameter.size if local else 0
        if parameter.name in manifest.subset:
            trained = math.prod(manifest.subset.shape(parameter.name))
        layers[name] = Layer(name, layer.size + parameter.size, layer.trained + trained, layer.local or local)
    status.layers = list(layers.values())
    status.program_needs = manifest.memory.measured_bytes
    status.plan_budget = manifest.memory.budget_bytes
