"""
Programs of the zoo with the numbers that every engine must give, as files.

Making a case needs torch; using one needs numpy alone, so that cases made here can be run on another machine:
``python -m tests.conformance.cases FOLDER [NAME ...]`` writes them.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

from exporters import Plan, Task, load_task
from exporters.plan import frozen_in_all
from exporters.program.build import build
from exporters.program.step import Step
from exporters.quiet import quiet
from exporters.zoo import TASKS
from mobile_sdk import safetensors
from mobile_sdk.engines.dropout import draw, generator
from mobile_sdk.layout import Subset
from mobile_sdk.manifest import TensorSpec

__all__ = ["CASES", "EXPECTED", "PLANS", "QUICK", "SEED", "STEPS", "plan_of", "write"]

EXPECTED = "expected.safetensors"
STEPS = 5
# Of dropout, in the test too.
SEED = 7
# What a plan trains; ``baked`` has what it freezes inside the program, others map it.
PLANS = ("everything", "half", "last", "baked")
# Every task whole, and others of each kind.
CASES = {name: (name, "everything") for name in TASKS} | {
    f"{name}-{plan}": (name, plan)
    for name, plan in (("digits", "half"), ("mobilenet_v2", "half"), ("lenet", "last"), ("digits", "baked"),
                       ("ds_cnn", "baked"), ("resnet20", "baked"))
}  # fmt: skip
QUICK = ("mlp", "digits-half", "digits-baked", "text")


def write(case: str, folder: Path) -> Path:
    """Export a case's program to ``folder``, with what double precision gives for a full batch and a short one."""
    name, kind = CASES[case]
    with quiet():
        task = load_task(TASKS[name])
        plan = plan_of(task, kind)
        program = build(task, plan)
        program.save(folder)
        plain = Step(task, plan)
        step = plain.in_float64()
        weights = {n: torch.from_numpy(v.copy()).double() for n, v in task.layout.views(program.weights).items()}
        x, y = task.batch(task.micro_batch)
        sample_weight = torch.linspace(0.5, 1.5, len(x))
        arrays = {"x": x.numpy(), "y": y.numpy(), "sample_weight": sample_weight.numpy()}
        # A short batch is filled up with samples of weight 0, which batch normalisation would still count.
        counts = [len(x)] if _normalises_batches(task) else [len(x), len(x) // 2 + 1]
        single = {n: w.float() for n, w in weights.items()}
        for count in counts:
            batch = [_double(t[:count]) for t in (x, y, sample_weight)]
            results = step.train_step(*batch, *[weights[n] for n in step.order])
            sums = 1 + len(task.metrics)
            rounded = plain.train_step(*(t[:count] for t in (x, y, sample_weight)), *[single[n] for n in step.order])[
                sums:
            ]
            arrays |= {f"{count}/rounded/{n}": g.numpy() for n, g in zip(step.trained, rounded, strict=True)}
            arrays |= {f"{count}/train/{i}": r.numpy() for i, r in enumerate(results[:sums])}
            arrays |= {f"{count}/gradient/{n}": g.numpy() for n, g in zip(step.trained, results[sums:], strict=True)}
            evaluated = step.evaluate(*batch, *[weights[n] for n in step.names])
            arrays |= {f"{count}/evaluate/{i}": r.detach().numpy() for i, r in enumerate(evaluated)}
            arrays[f"{count}/predict"] = step.predict(batch[0], *[weights[n] for n in step.names]).numpy()
        if plain.draws:
            masks = [torch.from_numpy(mask).double() for mask in _masks(plain)]
            batch = [_double(t) for t in (x, y, sample_weight)]
            results = step.train_step(*batch, *[weights[n] for n in step.order], *masks)
            dropped = zip(step.trained, results[sums:], strict=True)
            arrays |= {f"dropout/gradient/{n}": g.numpy() for n, g in dropped}
        arrays |= _moved("moved", step, [_double(t) for t in (x, y, sample_weight)], weights)
        arrays |= _moved("rounded", plain, [x, y, sample_weight], single)
    (folder / EXPECTED).write_bytes(safetensors.dumps(arrays, {"counts": " ".join(map(str, counts))}))
    return folder


def _masks(step: Step) -> list[np.ndarray]:
    """The masks that an engine draws from :data:`SEED`."""
    source, masks = generator(SEED), []
    for dropout in step.draws:
        masks.append(np.empty(dropout.shape, np.float32))
        draw(TensorSpec("dropout", dropout.module, dropout.shape, "float32", dropout.keep), source, masks[-1])
    return masks


def _moved(name: str, step: Step, batch: list[torch.Tensor], weights: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    """What trained weights have moved by after some steps of SGD, in compact form, as ``name``."""
    current = dict(weights)
    subset = step.plan.subset
    rate = 0.01 / len(batch[0])
    for _ in range(STEPS):
        results = step.train_step(*batch, *[current[n] for n in step.order])
        for trained, gradient in zip(step.trained, results[-len(step.trained) :], strict=True):
            moved = current[trained].clone()
            moved[subset.selector(trained)] -= rate * gradient
            current[trained] = moved
    return {f"{name}/{n}": (current[n] - weights[n])[subset.selector(n)].numpy() for n in step.trained}


def plan_of(task: Task, kind: str) -> Plan:
    """One of :data:`PLANS`; ``baked`` bakes what the last two parameters alone leave frozen, where anything gains."""
    names = list(task.parameter_names())
    if kind == "everything":
        return Plan.everything(task)
    first = len(names) // 2 if kind == "half" else len(names) - 2
    plan = Plan(Subset(task.layout, dict.fromkeys(names[first:])), task.micro_batch)
    return plan.bake(frozen_in_all(task, [plan])) if kind == "baked" else plan


def _double(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.double() if tensor.is_floating_point() else tensor


def _normalises_batches(task: Task) -> bool:
    batch_norms = (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d)
    return any(isinstance(m, batch_norms) and m.training for m in task.model.modules())


if __name__ == "__main__":
    for wanted in sys.argv[2:] or CASES:
        print(write(wanted, Path(sys.argv[1]) / wanted), flush=True)
