"""A program computes the same in every build of ExecuTorch: options of the delegate, and how an app loads it."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from exporters import load_task
from exporters.program.build import build
from exporters.quiet import quiet
from exporters.zoo import TASKS
from mobile_sdk import load_engine
from mobile_sdk.engines import Engine
from mobile_sdk.engines.dropout import generator

from . import builds
from .cases import PLANS, plan_of
from .conftest import start_java

BUILDS = [builds.Build(*options) for options in itertools.product((False, True), (0, 1, 2), (False, True))]
QUICK = {("mlp", "everything"), ("digits", "baked"), ("text", "half")}
every_program = pytest.mark.parametrize(
    ("name", "kind"),
    [
        pytest.param(name, kind, marks=[] if (name, kind) in QUICK else [pytest.mark.full])
        for name in TASKS
        for kind in PLANS
    ],
)

pytestmark = pytest.mark.skipif(bool(builds.missing()), reason=builds.missing())


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    """Programs of the zoo by task and plan, each made once."""
    made: dict[tuple[str, str], Path] = {}

    def export(name: str, kind: str) -> Path:
        if (name, kind) not in made:
            task = load_task(TASKS[name])
            with quiet():
                plan = plan_of(task, kind)
                if kind == "baked" and not plan.baked:
                    pytest.skip(f"{name} has nothing that gains by being baked")
                program = build(task, plan)
            made[name, kind] = tmp_path_factory.mktemp("program")
            program.save(made[name, kind])
            x, y = task.batch(plan.micro_batch)
            np.savez(made[name, kind] / "batch.npz", x=x.numpy(), y=y.numpy())
        return made[name, kind]

    return export


def numbers(engine: Engine, folder: Path) -> list[Any]:
    """What all methods give, called in turns as a device does: each overwrites what others left in a workspace."""
    from mobile_sdk.weights import map_weights

    with np.load(folder / "batch.npz") as batch:
        x, y = batch["x"], batch["y"]
    weights = map_weights(engine.manifest.layout, [folder / "weights.safetensors"])
    sample_weight = np.linspace(0.5, 1.5, len(x), dtype=np.float32)
    result: list[Any] = []
    for seed in range(2):
        loss, metrics, gradients = engine.train_step(x, y, sample_weight, weights, generator(seed))
        result += [loss, *metrics.values(), *(g.copy() for g in gradients.values())]
        loss, metrics = engine.evaluate(x, y, sample_weight, weights)
        result += [loss, *metrics.values(), engine.predict(x, weights)]
    return result


def ran(folder: Path, engine_name: str, build: builds.Build) -> list[Any]:
    with builds.running(build):
        engine = load_engine(folder, engine_name)
        try:
            return numbers(engine, folder)
        finally:
            engine.close()


@every_program
def test_every_build_gives_the_same_bits(name: str, kind: str, exported: Callable[[str, str], Path]) -> None:
    folder = exported(name, kind)
    expected = ran(folder, "native", builds.WHEEL)
    assert all(np.isfinite(e).all() for e in expected)
    for other in BUILDS:
        for actual, wanted in zip(ran(folder, "native", other), expected, strict=True):
            np.testing.assert_array_equal(actual, wanted, err_msg=str(other))


@every_program
def test_the_android_bridge_gives_the_same_bits_in_the_archives_build(
    name: str, kind: str, exported: Callable[[str, str], Path]
) -> None:
    start_java()
    folder = exported(name, kind)
    expected = ran(folder, "native", builds.WHEEL)
    for other in (builds.ARCHIVE_MAPPED, builds.ARCHIVE_FROM_FILES):
        for actual, wanted in zip(ran(folder, "android", other), expected, strict=True):
            np.testing.assert_array_equal(actual, wanted, err_msg=str(other))


def test_programs_that_share_a_cache_and_a_workspace_do_not_disturb_each_other(
    exported: Callable[[str, str], Path],
) -> None:
    """Opened, run and closed in an order in which each finds what another left."""
    first, second = exported("digits", "baked"), exported("mlp", "everything")
    expected = {folder: ran(folder, "native", builds.WHEEL) for folder in (first, second)}
    with builds.running(builds.ARCHIVE_MAPPED):
        engines = [(folder, load_engine(folder)) for folder in (first, second, first)]
        for _ in range(2):
            for folder, engine in engines:
                torch.testing.assert_close(numbers(engine, folder), expected[folder], rtol=0, atol=0)
        _, closed = engines.pop(0)
        closed.close()
        for folder, engine in engines:
            torch.testing.assert_close(numbers(engine, folder), expected[folder], rtol=0, atol=0)
            engine.close()
