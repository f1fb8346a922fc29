"""What becomes of a row of the table: exported, run in both engines, and compared with eager autograd."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from exporters import Plan, Task
from exporters.batches import numpy_of
from exporters.errors import ExportError
from exporters.program.build import build
from exporters.program.step import Step
from exporters.program.verify import _double, relative_errors, verify_gradients
from mobile_sdk.engines import load_engine
from mobile_sdk.engines.base import Engine
from mobile_sdk.engines.dropout import MEDIANS
from tests.exporters.lowering.model_table import make

__all__ = ["outcome"]

SHORT = 4
ACCURATE = 1e-3


def outcome(row: Callable[[], Task]) -> tuple[str, str]:
    """
    One of ``right``, ``refused`` and ``wrong``, and what there is to say of it.

    Whatever else is raised is for the caller: a crash.
    """
    try:
        task = make(row)
        program = build(task, Plan.everything(task), cached=False)
    except ExportError as error:
        return "refused", str(error)
    with tempfile.TemporaryDirectory() as folder:
        program.save(folder)
        worst = 0.0
        for name in ("native", "interpreted"):
            engine = load_engine(Path(folder), name)
            try:
                if name == "native":
                    verify_gradients(engine, Step(task, program.plan))
                worst = max(worst, _error(engine, task, program.plan))
            except ExportError as error:
                return "refused", f"{name}: {error}"
            finally:
                engine.close()
    return ("right", f"{worst:.0e}") if worst < ACCURATE else ("wrong", f"off by {worst:.1e}")


def _error(engine: Engine, task: Task, plan: Plan) -> float:
    """
    The largest error of a gradient over a full and a short batch, against eager autograd over their samples alone.

    Models whose samples see each other are never given short ones.
    """
    worst = 0.0
    full = len(task.example_x)
    for count in (full,) if "train_step" in engine.manifest.whole else (full, SHORT):
        step = Step(task, Plan(plan.subset, count)).in_float64()
        x, y = task.example_x[:count], task.example_y[:count]
        weights = task.layout.views(task.initial_weights())
        medians = [torch.full(d.shape, MEDIANS[d.role], dtype=torch.float64) for d in step.draws]
        expected = step.train_step(
            _double(x),
            _double(y),
            torch.ones(count, dtype=torch.float64),
            *[torch.from_numpy(weights[n]).double() for n in step.order],
            *medians,
        )
        loss, _, gradients = engine.train_step(numpy_of(x), numpy_of(y), np.ones(count, np.float32), weights)
        names = expected[-len(step.trained) :]
        errors = relative_errors(gradients, {n: t.numpy() for n, t in zip(step.trained, names, strict=True)})
        worst = max(worst, *errors.values(), abs(loss - float(expected[0])) / max(1.0, abs(float(expected[0]))))
    return worst
