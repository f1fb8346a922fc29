"""Every target by its name."""

from __future__ import annotations

from . import file_targets, gateway_targets, operator_targets, protocol_targets
from .target import Target

__all__ = ["TARGETS"]

TARGETS: dict[str, Target] = {
    target.name: target
    for module in (protocol_targets, file_targets, operator_targets, gateway_targets)
    for target in module.TARGETS
}
