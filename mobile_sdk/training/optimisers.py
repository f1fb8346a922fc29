"""
Local optimisers in numpy: the same on every platform.

Conventions and defaults are PyTorch's, so a run file's numbers mean what they mean there. State is kept for the trained
elements only, in compact shape.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import numpy as np

from ..layout import Arrays, Vector

__all__ = ["SGD", "Adam", "Optimiser", "clip_gradients"]

# Gives the trained part of a parameter as it is now, in compact shape.
Current = Callable[[str], Vector]


class Optimiser(Protocol):
    """Turns gradients into steps."""

    def steps(self, gradients: Arrays, current: Current | None = None) -> Iterable[tuple[str, Vector]]:
        """
        What to subtract from the trained part of each parameter, in its compact shape.

        Args:
            gradients: mean gradients, compact; they may be overwritten.
            current: needed where there is weight decay.

        """
        ...

    def state(self) -> tuple[dict[str, Vector], list[float]]:
        """
        What it remembers of earlier steps: arrays, which go on changing, and numbers.

        Returns:
            Name -> float32 array in the compact shape of a gradient; numbers such as a count of steps.

        """
        ...

    def restore(self, arrays: Arrays, numbers: Sequence[float]) -> None:
        """Go on from what :meth:`state` gave another; arrays are copied."""
        ...


class SGD:
    """
    Stochastic gradient descent: ``m = momentum * m + g; w -= learning_rate * m``.

    The momentum is heavy-ball in PyTorch's convention (Sutskever et al. 2013 differ by where the learning rate stands),
    or Nesterov's: ``w -= learning_rate * (g + momentum * m)``. ``weight_decay`` adds that multiple of w to g.

    Args:
        learning_rate: above 0.
        momentum: 0 to 1; 0 keeps no state.
        nesterov: whether the step looks ahead along the momentum.
        weight_decay: times the weights, added to the gradients; 0 for none.

    """

    def __init__(
        self, *, learning_rate: float, momentum: float = 0.0, nesterov: bool = False, weight_decay: float = 0.0
    ) -> None:
        self._learning_rate = np.float32(learning_rate)
        self._momentum = np.float32(momentum)
        self._nesterov = nesterov
        self._weight_decay = np.float32(weight_decay)
        self._velocity: dict[str, Vector] = {}

    def steps(self, gradients: Arrays, current: Current | None = None) -> Iterable[tuple[str, Vector]]:
        """See :meth:`Optimiser.steps`."""
        for name, gradient in gradients.items():
            if self._weight_decay and current is not None:
                gradient += self._weight_decay * current(name)
            if self._momentum == 0:
                yield name, self._learning_rate * gradient
                continue
            velocity = self._velocity.get(name)
            if velocity is None:
                velocity = self._velocity[name] = np.zeros_like(gradient)
            velocity *= self._momentum
            velocity += gradient
            if self._nesterov:
                gradient += self._momentum * velocity
                yield name, self._learning_rate * gradient
            else:
                yield name, self._learning_rate * velocity

    def state(self) -> tuple[dict[str, Vector], list[float]]:
        """See :meth:`Optimiser.state`."""
        return dict(self._velocity), []

    def restore(self, arrays: Arrays, numbers: Sequence[float]) -> None:
        """See :meth:`Optimiser.restore`."""
        self._velocity = {name: array.copy() for name, array in arrays.items()}


class Adam:
    """
    Adam (Kingma and Ba 2015), or AdamW (Loshchilov and Hutter 2019) with ``decoupled`` weight decay.

    It keeps two numbers per trained element, where SGD with momentum keeps one.

    Args:
        learning_rate: above 0.
        beta1: decay of the mean of gradients.
        beta2: decay of the mean of their squares.
        epsilon: added to the root of that mean.
        weight_decay: 0 for none.
        decoupled: AdamW: decay the weights directly, not by way of the gradients.

    """

    def __init__(
        self,
        *,
        learning_rate: float,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
        weight_decay: float = 0.0,
        decoupled: bool = False,
    ) -> None:
        self._learning_rate = learning_rate
        self._betas = np.float32(beta1), np.float32(beta2)
        self._powers = 1.0, 1.0
        self._epsilon = np.float32(epsilon)
        self._weight_decay = np.float32(weight_decay)
        self._decoupled = decoupled
        self._moments: dict[str, tuple[Vector, Vector]] = {}

    def steps(self, gradients: Arrays, current: Current | None = None) -> Iterable[tuple[str, Vector]]:
        """See :meth:`Optimiser.steps`."""
        beta1, beta2 = self._betas
        self._powers = self._powers[0] * float(beta1), self._powers[1] * float(beta2)
        size = np.float32(self._learning_rate / (1 - self._powers[0]))
        correction = np.float32(1 / math.sqrt(1 - self._powers[1]))
        for name, gradient in gradients.items():
            decay = None
            if self._weight_decay and current is not None:
                decay = self._weight_decay * current(name)
                if not self._decoupled:
                    gradient += decay
                    decay = None
            if name not in self._moments:
                self._moments[name] = np.zeros_like(gradient), np.zeros_like(gradient)
            mean, square = self._moments[name]
            mean += (1 - beta1) * (gradient - mean)
            square *= beta2
            gradient *= gradient
            gradient *= 1 - beta2
            square += gradient
            step = np.sqrt(square)
            step *= correction
            step += self._epsilon
            np.divide(mean, step, out=step)
            step *= size
            if decay is not None:
                step += np.float32(self._learning_rate) * decay
            yield name, step

    def state(self) -> tuple[dict[str, Vector], list[float]]:
        """See :meth:`Optimiser.state`."""
        moments = self._moments.items()
        means = {f"mean/{name}": mean for name, (mean, _) in moments}
        return means | {f"square/{name}": square for name, (_, square) in moments}, [*self._powers]

    def restore(self, arrays: Arrays, numbers: Sequence[float]) -> None:
        """See :meth:`Optimiser.restore`."""
        names = [key.removeprefix("mean/") for key in arrays if key.startswith("mean/")]
        self._moments = {n: (arrays[f"mean/{n}"].copy(), arrays[f"square/{n}"].copy()) for n in names}
        self._powers = numbers[0], numbers[1]


def clip_gradients(gradients: Arrays, norm: float) -> None:
    """
    Scale gradients in place, all by the same factor, so that their common Euclidean norm is at most ``norm``.

    Args:
        gradients: name -> float32 array, changed in place.
        norm: above 0.

    """
    total = math.sqrt(sum(float(np.vdot(g, g)) for g in gradients.values()))
    if math.isfinite(total) and total > norm:
        factor = np.float32(norm / (total + 1e-6))
        for gradient in gradients.values():
            gradient *= factor
