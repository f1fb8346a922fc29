"""
How far a merge may step, given how old the updates in it are.

Near an optimum the weights' error x follows ``x(t+1) = x(t) - g sum_l c_l x(t - l)``: a merge takes off it what its
updates say, those of age l as of l merges ago, with the share ``c_l`` (staleness weights included). The *critical gain*
is the smallest g at which that recursion oscillates without dying out. For updates that all have the age tau it is
``2 sin(pi / (2 (2 tau + 1)))``; where ages differ it is much larger, since what one group overshoots another evens out.

A device moves at most all the way to the optimum of its own samples, so g is at most ``merge.learning_rate``: with a
critical gain above that, no direction can diverge however curved the loss is there. That is the criterion by which an
adaptive buffer is sized. In the runs of the comparison with the paper the critical gain orders the final accuracies of
all fleets and delay laws; the mean age does not: at 9.6 merges it is 0.34 with equal devices, 0.48 with unequal ones.
"""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt

__all__ = ["MAX_AGE", "critical_gain"]

Floats = npt.NDArray[np.float64]

# Ages beyond this are counted as this: the frequencies below resolve no longer delays.
MAX_AGE = 256
# Frequencies at which the recursion is looked at, denser where long delays resonate.
POINTS = 384


def critical_gain(shares: Floats) -> float:
    """
    The gain at which a merge with such ages begins to oscillate.

    Args:
        shares: float64, shape ``(ages,)``, at most ``MAX_AGE + 1`` long: the sum of the staleness weights of the
            updates of each age, over the number of all updates.

    Returns:
        Above 0; infinite where all weights are 0.

    """
    factors, waves = _frequencies()
    response = (waves[:, : len(shares)] * shares).sum(axis=1) * factors  # (POINTS,), of the open loop at gain 1
    real, imaginary = response.real, response.imag
    # Where the response crosses the negative real axis, gain 1 / |response| closes the loop on itself (Nyquist).
    crossing = np.flatnonzero(np.signbit(imaginary[:-1]) != np.signbit(imaginary[1:]))
    part = imaginary[crossing] / (imaginary[crossing] - imaginary[crossing + 1])
    values = real[crossing] + part * (real[crossing + 1] - real[crossing])
    lowest = min(float(values.min(initial=0.0)), float(real[-1]))  # the last frequency is pi: real by symmetry
    return float("inf") if lowest >= 0 else -1.0 / lowest


@functools.cache
def _frequencies() -> tuple[npt.NDArray[np.complex128], npt.NDArray[np.complex128]]:
    """``1 / (z - 1)``, shape (POINTS,), and ``z^-l``, shape (POINTS, MAX_AGE + 1), for z on the unit circle."""
    omega = np.pi * (np.arange(1, POINTS + 1) / POINTS) ** 2
    return 1.0 / (np.exp(1j * omega) - 1.0), np.exp(-1j * np.outer(omega, np.arange(MAX_AGE + 1)))
