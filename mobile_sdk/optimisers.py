"""Local optimisers in numpy: the same on every platform."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from .layout import Arrays, Vector

__all__ = ["SGD"]


class SGD:
    """
    Stochastic gradient descent with (heavy-ball) momentum: ``m = momentum * m + g; w -= learning_rate * m``.

    This is PyTorch's convention (Sutskever et al. 2013 differ by where the learning rate stands).
    """

    def __init__(self, *, learning_rate: float, momentum: float = 0.0) -> None:
        self._learning_rate = np.float32(learning_rate)
        self._momentum = np.float32(momentum)
        self._velocity: dict[str, Vector] = {}

    def steps(self, gradients: Arrays) -> Iterable[tuple[str, Vector]]:
        """Name -> what to subtract from the trained part of that parameter, in its compact shape."""
        for name, gradient in gradients.items():
            if self._momentum == 0:
                yield name, self._learning_rate * gradient
                continue
            velocity = self._velocity.get(name)
            if velocity is None:
                velocity = self._velocity[name] = np.zeros_like(gradient)
            velocity *= self._momentum
            velocity += gradient
            yield name, self._learning_rate * velocity
