"""What the coordinator asks of a device's training."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal, get_args

from ..errors import ProtocolError
from .optimisers import SGD, Adam, Optimiser

__all__ = ["COUNTS", "OPTIMISERS", "RANGES", "OptimiserName", "TrainingSettings"]

OptimiserName = Literal["sgd", "adam", "adamw"]
OPTIMISERS: tuple[str, ...] = get_args(OptimiserName)

# The limits of numbers: name -> lowest value, and what it must stay below. Both sides hold to them.
RANGES = {
    "seconds": (0.0, 1e30),
    "learning_rate": (0.0, 1e30),
    "momentum": (0.0, 1.0),
    "beta1": (0.0, 1.0),
    "beta2": (0.0, 1.0),
    "epsilon": (0.0, 1e30),
    "weight_decay": (0.0, 1e30),
    "proximal": (0.0, 1e30),
    "clip_norm": (0.0, 1e30),
}
# Those of whole numbers: name -> lowest value.
COUNTS = {"epochs": 1, "steps": 0, "batch_size": 1}


@dataclasses.dataclass(frozen=True)
class TrainingSettings:
    """
    What the coordinator asks of a device; a zero switches a thing off.

    Args:
        epochs: passes over the device's samples.
        steps: optimiser steps, in place of epochs; samples are passed over as often as it takes.
        seconds: no new step begins after so long; at least one is done.
        batch_size: samples per optimiser step, made up of as many micro-batches as it takes.
        optimiser: ``sgd``, ``adam`` or ``adamw``; see :mod:`mobile_sdk.training.optimisers`.
        learning_rate: its step size.
        momentum: of SGD; 0 keeps no optimiser state.
        nesterov: whether SGD's momentum is Nesterov's.
        beta1: of Adam: what a step keeps of the mean gradient.
        beta2: of Adam: what it keeps of the mean square.
        epsilon: of Adam: added to the root of the mean square.
        weight_decay: L2 for SGD and Adam, decoupled for AdamW.
        proximal: mu of FedProx, which holds the weights near those that the device was given.
        clip_norm: the most that the Euclidean norm of a step's gradients may be.

    """

    epochs: int = 1
    batch_size: int = 16
    learning_rate: float = 0.05
    momentum: float = 0.0
    steps: int = 0
    seconds: float = 0.0
    optimiser: str = "sgd"
    nesterov: bool = False
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.0
    proximal: float = 0.0
    clip_norm: float = 0.0

    @property
    def state_copies(self) -> int:
        """Numbers of optimiser state per trained element."""
        return 2 if self.optimiser != "sgd" else int(self.momentum > 0)

    def count_steps(self, samples: int) -> int:
        """Optimiser steps that a device with so many samples does, unless its time is up."""
        return self.steps or self.epochs * -(-samples // self.batch_size)

    def is_over(self, seconds: float) -> bool:
        """Whether no new step begins once a step has ended so many seconds after the training began."""
        return 0 < self.seconds <= seconds

    def make_optimiser(self) -> Optimiser:
        """The optimiser, with no state yet."""
        if self.optimiser == "sgd":
            return SGD(
                learning_rate=self.learning_rate,
                momentum=self.momentum,
                nesterov=self.nesterov,
                weight_decay=self.weight_decay,
            )
        return Adam(
            learning_rate=self.learning_rate,
            beta1=self.beta1,
            beta2=self.beta2,
            epsilon=self.epsilon,
            weight_decay=self.weight_decay,
            decoupled=self.optimiser == "adamw",
        )

    def to_json(self) -> dict[str, Any]:
        """As it travels in an assignment."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TrainingSettings:
        """
        Parse and check.

        Raises:
            ProtocolError: if a field is unknown, missing or out of range.

        """
        if set(data) != {field.name for field in dataclasses.fields(cls)}:
            raise ProtocolError(f"training settings have the fields {sorted(data)}: update the SDK")
        for name, least in COUNTS.items():
            value = data[name]
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ProtocolError(
                    f"training setting {name} is {value!r}; it must be a whole number, at least {least}"
                )
        for name, (low, high) in RANGES.items():
            value = data[name]
            if not isinstance(value, int | float) or isinstance(value, bool) or not low <= value < high:
                bound = f", below {high:g}" if math.isfinite(high) and high <= 1 else ""
                raise ProtocolError(f"training setting {name} is {value!r}; it must be at least {low:g}{bound}")
        if data["optimiser"] not in OPTIMISERS:
            raise ProtocolError(f"training setting optimiser is {data['optimiser']!r}: this SDK knows {OPTIMISERS}")
        if not isinstance(data["nesterov"], bool):
            raise ProtocolError(f"training setting nesterov is {data['nesterov']!r}; it must be true or false")
        return cls(**data)
