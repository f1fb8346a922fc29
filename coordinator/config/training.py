"""``[training]``: how devices train."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from mobile_sdk.training.settings import COUNTS, RANGES, OptimiserName, TrainingSettings

from .section import Section

__all__ = ["TrainingSection"]

# With ``epochs = "auto"``: less than so many steps move a model too little for the bytes of a trip, and more passes
# than this over few samples fit it to these alone.
FEWEST_STEPS = 10
MOST_EPOCHS = 5


def _training_field(name: str) -> Any:
    """A field with the default and the limits that devices hold to."""
    default = getattr(TrainingSettings(), name)
    if name in COUNTS:
        return Field(default, ge=COUNTS[name])
    if name in RANGES:
        least, below = RANGES[name]
        return Field(default, ge=least, lt=below)
    return Field(default)


class TrainingSection(Section):
    """
    What devices do with what they get; see :class:`mobile_sdk.training.settings.TrainingSettings`.

    ``learning_rate``: ``auto`` finds one when the run begins, on the task's own samples
    (:mod:`exporters.search.learning_rate`); it stays the same for the whole run.
    """

    epochs: Annotated[int, Field(ge=COUNTS["epochs"])] | Literal["auto"] = "auto"
    steps: int = _training_field("steps")
    seconds: float = _training_field("seconds")
    batch_size: int = _training_field("batch_size")
    optimiser: OptimiserName = _training_field("optimiser")
    learning_rate: (
        Annotated[float, Field(ge=RANGES["learning_rate"][0], lt=RANGES["learning_rate"][1])] | Literal["auto"]
    ) = "auto"
    momentum: float = _training_field("momentum")
    nesterov: bool = _training_field("nesterov")
    beta1: float = _training_field("beta1")
    beta2: float = _training_field("beta2")
    epsilon: float = _training_field("epsilon")
    weight_decay: float = _training_field("weight_decay")
    proximal: float = _training_field("proximal")
    clip_norm: float = _training_field("clip_norm")

    @model_validator(mode="after")
    def _belongs_together(self) -> TrainingSection:
        if self.nesterov and (self.optimiser != "sgd" or not self.momentum):
            raise ValueError("nesterov is for the optimiser sgd with a momentum: set both or neither")
        if self.momentum and self.optimiser != "sgd":
            raise ValueError(f"momentum is for the optimiser sgd; {self.optimiser} has beta1")
        return self

    @property
    def settings(self) -> TrainingSettings:
        """As devices get it; an ``auto`` that was not found yet is the devices' own default."""
        return TrainingSettings(**{name: value for name, value in self.model_dump().items() if value != "auto"})

    def epochs_for(self, samples: int | None) -> int:
        """
        Passes of a device over its samples; where ``auto``, as many as make ten steps, but five at the most.

        Args:
            samples: how many it has; none if it has not said so.

        """
        if self.epochs != "auto":
            return self.epochs
        steps = -(-(samples or FEWEST_STEPS * self.batch_size) // self.batch_size)
        return min(-(-FEWEST_STEPS // max(steps, 1)), MOST_EPOCHS)
