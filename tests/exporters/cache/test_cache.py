"""An export that was made before comes from the cache, and from nowhere else than the same graphs."""

from __future__ import annotations

import ast
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import exporters
from exporters import Plan, Task, export, pipeline
from exporters.cache import store as cache
from exporters.cache.fingerprint import Unknown, fingerprint
from exporters.program.build import build
from mobile_sdk.layout import Subset
from tests.exporters.export_tasks import task_of, tiny_task


@pytest.fixture
def emitted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Starts with an empty cache; gets an entry for every program that is made anew."""
    import exporters.program.build

    made: list[str] = []
    real = exporters.emit.pte.emit

    def counting(methods: Any) -> Any:
        made.append(",".join(methods))
        return real(methods)

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(exporters.program.build, "emit", counting)
    return made


def small(width: int = 3, slope: float = 0.1) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(72, width), nn.LeakyReLU(slope), nn.Linear(width, 3))


def test_a_second_export_is_the_first_without_lowering(emitted: Any) -> None:
    first, second = export(task_of(small())), export(task_of(small()))
    assert len(emitted) == 1
    assert second.pte == first.pte
    assert second.manifest == first.manifest
    assert second.gradient_error == first.gradient_error
    assert second.seconds < first.seconds


def test_a_second_export_traces_nothing(emitted: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    first = export(task_of(small()))
    monkeypatch.setattr("exporters.program.build.trace", None)
    assert export(task_of(small())).pte == first.pte


class Gated(nn.Module):
    """Its step follows from a global, a closure, an attribute and a constant tensor."""

    offset: torch.Tensor
    act: Callable[[torch.Tensor], torch.Tensor]

    def __init__(self, slope: float = 0.5, offset: float = 1.0) -> None:
        super().__init__()
        self.slope = slope
        self.act = lambda x: torch.where(x > 0, x, x * slope)
        self.register_buffer("offset", torch.tensor([offset]), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(x * GAIN) + self.offset


GAIN = 2.0


def gated(**options: float) -> Task:
    torch.manual_seed(0)
    return task_of(nn.Sequential(nn.Flatten(), nn.Linear(72, 3), Gated(**options)))


def test_a_fingerprint_follows_globals_closures_attributes_and_constants(monkeypatch: pytest.MonkeyPatch) -> None:
    task = gated()
    plan = Plan.everything(task)
    first = fingerprint(task, plan)
    assert fingerprint(gated(), plan) == first
    assert fingerprint(gated(slope=0.25), plan) != first
    assert fingerprint(gated(offset=2.0), plan) != first
    monkeypatch.setattr(sys.modules[__name__], "GAIN", 3.0)
    assert fingerprint(gated(), plan) != first


def test_a_fingerprint_follows_the_code_of_a_module(monkeypatch: pytest.MonkeyPatch) -> None:
    task = gated()
    first = fingerprint(task, Plan.everything(task))
    monkeypatch.setattr(Gated, "forward", lambda self, x: self.act(x) * GAIN + self.offset)
    assert fingerprint(task, Plan.everything(task)) != first


def test_weights_have_no_part_in_a_fingerprint_but_the_mode_and_baked_ones_have() -> None:
    task, other = task_of(small()), task_of(small())
    with torch.no_grad():
        other.model.get_parameter("1.weight").mul_(2)
    plan = Plan.everything(task)
    assert fingerprint(other, plan) == fingerprint(task, plan)
    last = Plan(Subset.whole(task.layout, ["3.bias"]), 4, baked=("1.weight",))
    assert fingerprint(other, last) != fingerprint(task, last)
    other.model.eval()
    assert fingerprint(other, plan) != fingerprint(task, plan)


class Careless(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        import os

        return x * float(os.environ.get("GAIN", "1"))


class Keeping(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.kept = iter([1.0])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


@pytest.mark.parametrize("layer", [Careless(), Keeping()])
def test_what_cannot_be_vouched_for_has_no_fingerprint_and_is_traced(
    layer: Any, emitted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = task_of(nn.Sequential(nn.Flatten(), nn.Linear(72, 3), layer))
    with pytest.raises(Unknown):
        fingerprint(task, Plan.everything(task))
    first = build(task, Plan.everything(task), ("train_step",))
    assert build(task, Plan.everything(task), ("train_step",)).pte == first.pte
    monkeypatch.setenv("GAIN", "3")
    changed = build(task, Plan.everything(task), ("train_step",))
    assert (changed.pte != first.pte) == isinstance(layer, Careless)
    assert len(emitted) == 1 + isinstance(layer, Careless)


def test_what_was_used_longest_ago_goes_when_there_is_too_much(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(cache, "_LARGEST", 250)
    for name in ("a", "b"):
        cache.store(name, bytes(50))
        os.utime(cache.folder() / name, (ord(name), ord(name)))
    assert cache.load("a") == bytes(50)
    cache.store("c", bytes(50))
    cache.store("d", bytes(50))
    assert cache.load("b") is None
    assert cache.load("a") == cache.load("d") == bytes(50)


def test_what_changes_the_step_changes_the_key(emitted: Any) -> None:
    task = task_of(small())
    build(task, Plan.everything(task), ("train_step",))
    build(task, Plan(Subset.whole(task.layout, ["3.bias"]), 4), ("train_step",))
    build(task, Plan.everything(task, 2), ("train_step",))
    build(task, Plan.everything(task), ("predict", "train_step"))
    for other in (task_of(small(slope=0.2)), task_of(small(width=4))):
        build(other, Plan.everything(other), ("train_step",))
    assert len(emitted) == 6


def test_constants_of_the_model_are_part_of_the_key(emitted: Any) -> None:
    class Scaled(nn.Module):
        scale: torch.Tensor

        def __init__(self, scale: float) -> None:
            super().__init__()
            self.register_buffer("scale", torch.full((72,), scale), persistent=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * self.scale

    for scale in (1.0, 2.0):
        task = task_of(nn.Sequential(nn.Flatten(), Scaled(scale), nn.Linear(72, 3)))
        build(task, Plan.everything(task), ("predict", "train_step"))
    assert len(emitted) == 2


def test_other_weights_take_the_program_but_are_verified_again(emitted: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    verified = []
    from exporters.program.verify import verify_gradients as real

    monkeypatch.setattr(pipeline, "verify_gradients", lambda *a: verified.append(1) or real(*a))
    export(tiny_task())
    task = tiny_task()
    with torch.no_grad():
        task.model.get_parameter("0.weight").mul_(2)
    export(task)
    assert (len(emitted), len(verified)) == (1, 2)


def test_a_damaged_file_is_made_anew(emitted: Any) -> None:
    task = task_of(small())
    first = build(task, Plan.everything(task), ("train_step",))
    for path in cache.folder().iterdir():
        path.write_bytes(path.read_bytes()[:-10] + b"damage" + bytes(4))
    assert build(task, Plan.everything(task), ("train_step",)).pte == first.pte
    assert len(emitted) == 2


def test_a_folder_that_cannot_be_written_is_done_without(
    emitted: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    task = task_of(small())
    for _ in range(2):
        build(task, Plan.everything(task), ("train_step",))
    assert len(emitted) == 2


def test_nothing_that_makes_a_program_uses_what_chooses_plans() -> None:
    """The key leaves those folders out; only whoever asks for a plan imports them."""
    package = Path(exporters.__file__).parent
    using = {
        str(path.relative_to(package))
        for path in package.rglob("*.py")
        if path.relative_to(package).parts[0] not in cache._CHOOSING
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom)
        and {*(node.module or "").split("."), *(alias.name for alias in node.names)} & set(cache._CHOOSING)
    }
    assert using == {"cli/export.py", "cli/picture.py", "cli/plan.py", "pipeline.py"}


def test_a_changed_byte_anywhere_in_the_package_changes_the_key(tmp_path: Path) -> None:
    """The exporter's own sources are a part of every key, wherever in the package they lie."""
    package = shutil.copytree(Path(exporters.__file__).parent, tmp_path / "moved")
    key = cache.sources_key(package, without=cache._CHOOSING)
    for name in (
        "program/build.py",
        "emit/xnnpack.py",
        "lowering/rewrites/convolution.py",
        "cache/store.py",
        "task.py",
    ):
        path = package / name
        content = path.read_bytes()
        path.write_bytes(bytes([content[0] ^ 1]) + content[1:])
        assert cache.sources_key(package, without=cache._CHOOSING) != key, name
        path.write_bytes(content)
    assert cache.sources_key(package, without=cache._CHOOSING) == key
    (package / "search" / "knapsack.py").unlink()
    assert cache.sources_key(package, without=cache._CHOOSING) == key
