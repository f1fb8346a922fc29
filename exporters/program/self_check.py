"""What a program's manifest says of its numbers, so that a device can tell whether its runtime is right."""

from __future__ import annotations

import dataclasses
import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mobile_sdk.engines import load_engine, self_check
from mobile_sdk.engines.self_check import TOLERANCE
from mobile_sdk.manifest import SelfCheck

from ..batches import tensors_of
from ..errors import ExportError
from ..task import Task
from .build import Program

__all__ = ["make_self_check"]

_DRAWS = 8
# Engines must agree this much better than a device is asked to.
_AGREEMENT = TOLERANCE / 10
# Significant digits of what the manifest says.
_DIGITS = 7


def make_self_check(task: Task, program: Program) -> SelfCheck:
    """
    Inputs that two engines give the same numbers for, and those numbers.

    Weights are drawn around the task's own, as far apart as they are, x and y like the example's. Where rounding
    decides (a ReLU at zero) engines differ, and other inputs are drawn.

    Raises:
        ExportError: if no inputs were found that the engines agree on.

    """
    found = "nothing was drawn"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        program.save(folder)
        engines = [load_engine(folder, engine) for engine in ("native", "interpreted")]
        try:
            for seed in range(_DRAWS):
                drawn = _inputs(task, program, seed)
                # As the manifest will have it, for what is drawn depends on the parameters' order and digits.
                weights = self_check.draw_weights(program.manifest, drawn, folder / "drawn.safetensors")
                loss, prediction, gradients = self_check.observe(engines[0], drawn, weights)
                if not all(map(math.isfinite, (loss, prediction, *gradients.values()))) or not any(gradients.values()):
                    found = f"a loss of {loss:.3g} and gradients that are not finite, or all zero"
                    continue
                check = dataclasses.replace(
                    drawn,
                    loss=_rounded(loss),
                    prediction=_rounded(prediction),
                    gradients={n: _rounded(norm) for n, norm in gradients.items()},
                )
                others = self_check.errors(check, *self_check.observe(engines[1], drawn, weights))
                what, error = max(((what, error) for what, _, _, error in others), key=lambda pair: pair[1])
                if error <= _AGREEMENT:
                    return check
                found = f"{what} differs between two engines by {error:.1e}"
        finally:
            for engine in engines:
                engine.close()
    raise ExportError(
        f"the program cannot check itself on devices: of {_DRAWS} draws of inputs like the example's, the last gave "
        f"{found}; give the task an example batch whose x and y may be drawn one by one between their limits"
    )


def _inputs(task: Task, program: Program, seed: int) -> SelfCheck:
    manifest = program.manifest
    weights = manifest.layout.views(program.weights)
    return SelfCheck(
        seed=seed,
        x=tuple(_limits(part.numpy(), manifest.contract.range) for part in tensors_of(task.example_x)),
        y=tuple(_limits(part.numpy(), None) for part in tensors_of(task.example_y)),
        weights={p.name: _limits(weights[p.name], None) for p in manifest.layout if p.name not in manifest.baked},
        loss=0.0,
        prediction=0.0,
        gradients={},
    )


def _limits(values: npt.NDArray[Any], valid: tuple[float, float] | None) -> tuple[float, float]:
    """An interval of the same mean and standard deviation, inside what occurs; of whole numbers, all that occur."""
    low, high = float(values.min()), float(values.max())
    if values.dtype.kind != "f" or (values == np.round(values)).all():
        return int(low), int(high)
    spread = math.sqrt(3) * float(values.std(dtype=np.float64))
    mean = float(values.mean(dtype=np.float64))
    low, high = max(low, mean - spread), min(high, mean + spread)
    if valid is not None:
        low, high = max(low, valid[0]), min(high, valid[1])
    return _rounded(low), _rounded(high)


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")
