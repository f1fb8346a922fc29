"""A right runtime passes a program's self-check in every engine and build; a wrong one is refused in words."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

# Its compiled part crashes when it is loaded after ExecuTorch's runtime, which pytest's plugin would do.
import hypothesis  # noqa: F401
import numpy as np
import pytest

from exporters import Plan, Program, Task
from exporters.emit import xnnpack
from exporters.program.build import build
from exporters.program.self_check import make_self_check
from mobile_sdk import load_engine
from mobile_sdk.engines import self_check
from mobile_sdk.errors import ProgramError, ProgramRejected, SelfCheckFailed
from mobile_sdk.manifest import Manifest
from mobile_sdk.participation.self_check import RESULT_FILE, check_once
from tests.conformance import builds
from tests.exporters.export_tasks import tiny_task

needs_builds = pytest.mark.skipif(bool(builds.missing()), reason=builds.missing())


@pytest.fixture(scope="module")
def task() -> Task:
    return tiny_task()


@pytest.fixture(scope="module")
def program(task: Task) -> Program:
    built = build(task, Plan.everything(task), cached=False)
    return built.with_check(make_self_check(task, built))


@pytest.fixture
def folder(program: Program, tmp_path: Path) -> Path:
    program.save(tmp_path)
    return tmp_path


def checked(folder: Path, engine_name: str = "native") -> None:
    engine = load_engine(folder, engine_name)
    try:
        check_once(engine, folder)
    finally:
        engine.close()


@pytest.mark.parametrize("engine_name", ["native", "interpreted"])
def test_a_right_runtime_passes_and_leaves_nothing_but_the_result(folder: Path, engine_name: str) -> None:
    before = {path.name for path in folder.iterdir()}
    checked(folder, engine_name)
    assert {path.name for path in folder.iterdir()} == before | {RESULT_FILE}


@needs_builds
@pytest.mark.parametrize("build_of", [builds.ARCHIVE_MAPPED, builds.ARCHIVE_FROM_FILES], ids=str)
def test_the_archives_build_passes(folder: Path, build_of: builds.Build) -> None:
    with builds.running(build_of):
        checked(folder)


def test_what_is_drawn_depends_on_the_seed_alone(program: Program, tmp_path: Path) -> None:
    manifest, check = program.manifest, program.manifest.check
    assert check is not None
    first, second = (self_check.draw_weights(manifest, check, tmp_path / name) for name in ("a", "b"))
    other = self_check.draw_weights(manifest, dataclasses.replace(check, seed=check.seed + 1), tmp_path / "c")
    for name, (low, high) in check.weights.items():
        np.testing.assert_array_equal(first[name], second[name])
        assert low == high or not np.array_equal(first[name], other[name])
        assert np.float32(low) <= first[name].min()
        assert first[name].max() <= np.nextafter(np.float32(high), np.float32(np.inf))


def named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Emit as before constants lay behind the graph: all have names, and a runtime with a weight cache frees them."""
    described = xnnpack.describe

    def describe(*region: object) -> xnnpack.XnnpackGraph:
        graph = described(*region)  # type: ignore[arg-type]
        operands = [dataclasses.replace(o, packed=o.packed or "named") if o.data is not None else o
                    for o in graph.operands]  # fmt: skip
        return dataclasses.replace(graph, operands=operands)

    monkeypatch.setattr("exporters.emit.pte.describe", describe)
    monkeypatch.setattr(xnnpack, "_NAMED_BYTES", 0)


@needs_builds
def test_an_option_that_changes_numbers_is_found(
    task: Task, program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The weight cache of ExecuTorch's archives, under a program that goes on reading what it frees."""
    named(monkeypatch)
    fragile = build(task, Plan.everything(task), cached=False).with_check(program.manifest.check)  # type: ignore[arg-type]
    fragile.save(tmp_path)
    checked(tmp_path)  # the wheel's build computes what it should
    (tmp_path / RESULT_FILE).unlink()
    with (
        builds.running(builds.ARCHIVE_FROM_FILES),
        pytest.raises(SelfCheckFailed, match=r"computes wrong numbers: .* not"),
    ):
        checked(tmp_path)
    assert not (tmp_path / RESULT_FILE).exists()


@needs_builds
def test_a_kernel_left_out_is_found(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A runtime that is linked without the portable and optimised kernels."""
    output = tmp_path_factory.mktemp("runtime")
    script = (
        "import sys; from pathlib import Path; from mobile_sdk.native import build, library\n"
        "build.EXECUTORCH_STEMS = tuple(n for n in build.EXECUTORCH_STEMS if 'kernels' not in n)\n"
        "build.build(Path(sys.argv[2])); library.LIBRARY = Path(sys.argv[2]) / library.LIBRARY.name\n"
        "from mobile_sdk import load_engine; from mobile_sdk.participation.self_check import check_once\n"
        "folder = Path(sys.argv[1])\n"
        "check_once(load_engine(folder), folder)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, folder, output], check=False, capture_output=True, text=True)
    assert done.returncode != 0
    assert "SelfCheckFailed" in done.stderr
    assert "cannot run the program" in done.stderr
    assert "OperatorMissing" in done.stderr


def test_a_runtime_is_checked_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[str] = []
    monkeypatch.setattr(self_check, "run", lambda engine, folder: runs.append(engine.runtime))
    for engine_name in ("native", "native", "interpreted", "interpreted", "native"):
        checked(folder, engine_name)
    assert [name.split()[0] for name in runs] == ["native", "interpreted", "native"]


def test_a_check_that_ends_the_process_is_not_tried_for_ever(folder: Path) -> None:
    script = (
        "import os, sys; from pathlib import Path\n"
        "from mobile_sdk import load_engine; from mobile_sdk.engines import self_check\n"
        "from mobile_sdk.participation.self_check import check_once\n"
        "self_check.run = lambda engine, folder: os._exit(3)\n"
        "folder = Path(sys.argv[1]); check_once(load_engine(folder), folder)\n"
    )
    codes = [
        subprocess.run([sys.executable, "-c", script, folder], check=False, capture_output=True).returncode
        for _ in range(3)
    ]
    assert codes == [3, 3, 1]
    with pytest.raises(SelfCheckFailed, match="ended the process"):
        checked(folder)


@pytest.mark.parametrize("what", ["loss", "prediction", "gradients"])
@pytest.mark.parametrize("wrong", [0.0, float("nan"), 1.02])
def test_every_number_counts(program: Program, what: str, wrong: float) -> None:
    check = program.manifest.check
    assert check is not None
    seen = {"loss": check.loss, "prediction": check.prediction, "gradients": dict(check.gradients)}
    self_check.compare(check, **seen, runtime="a runtime")  # type: ignore[arg-type]
    if what == "gradients":
        largest = max(check.gradients, key=check.gradients.__getitem__)
        seen[what] = {**check.gradients, largest: check.gradients[largest] * wrong}
    else:
        seen[what] = getattr(check, what) * wrong
    with pytest.raises(SelfCheckFailed, match="a runtime"):
        self_check.compare(check, **seen, runtime="a runtime")  # type: ignore[arg-type]


def test_a_program_without_a_check_is_not_run(task: Task, tmp_path: Path) -> None:
    build(task, Plan.everything(task)).save(tmp_path)
    with pytest.raises(ProgramRejected, match="export it anew"):
        checked(tmp_path)


def test_a_manifest_of_the_time_before_is_refused_with_a_remedy(program: Program) -> None:
    old = program.manifest.to_bytes().replace(b'"format":2', b'"format":1')
    with pytest.raises(ProgramError, match=r"format 1.*export the program anew"):
        Manifest.from_bytes(old)


def test_a_manifest_keeps_its_check(program: Program) -> None:
    assert Manifest.from_bytes(program.manifest.to_bytes()) == program.manifest


def test_the_limits_of_a_single_part_are_read_as_earlier_programs_wrote_them(program: Program) -> None:
    data = json.loads(program.manifest.to_bytes())
    data["check"]["x"], data["check"]["y"] = data["check"]["x"][0], data["check"]["y"][0]
    assert Manifest.from_bytes(json.dumps(data).encode()) == program.manifest
