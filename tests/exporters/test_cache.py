"""An export that was made before comes from the cache, and from nowhere else than the same graphs."""

from __future__ import annotations

import pytest
import torch
from export_tasks import task_of, tiny_task
from torch import nn

from exporters import Plan, cache, export
from exporters.program import build
from mobile_sdk.layout import Subset


@pytest.fixture
def emitted(monkeypatch, tmp_path) -> list[str]:
    """Starts with an empty cache; gets an entry for every program that is made anew."""
    import exporters.program

    made: list[str] = []
    real = exporters.program.emit

    def counting(methods):
        made.append(",".join(methods))
        return real(methods)

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(exporters.program, "emit", counting)
    return made


def small(width: int = 3, slope: float = 0.1) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(72, width), nn.LeakyReLU(slope), nn.Linear(width, 3))


def test_a_second_export_is_the_first_without_lowering(emitted):
    first, second = export(task_of(small())), export(task_of(small()))
    assert len(emitted) == 1
    assert second.pte == first.pte
    assert second.manifest == first.manifest
    assert second.gradient_error == first.gradient_error
    assert second.seconds < first.seconds


def test_what_changes_the_step_changes_the_key(emitted):
    task = task_of(small())
    build(task, Plan.everything(task), ("train_step",))
    build(task, Plan(Subset.whole(task.layout, ["3.bias"]), 4), ("train_step",))
    build(task, Plan.everything(task, 2), ("train_step",))
    build(task, Plan.everything(task), ("predict", "train_step"))
    for other in (task_of(small(slope=0.2)), task_of(small(width=4))):
        build(other, Plan.everything(other), ("train_step",))
    assert len(emitted) == 6


def test_constants_of_the_model_are_part_of_the_key(emitted):
    class Scaled(nn.Module):
        def __init__(self, scale: float) -> None:
            super().__init__()
            self.register_buffer("scale", torch.full((72,), scale), persistent=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * self.scale

    for scale in (1.0, 2.0):
        task = task_of(nn.Sequential(nn.Flatten(), Scaled(scale), nn.Linear(72, 3)))
        build(task, Plan.everything(task), ("predict", "train_step"))
    assert len(emitted) == 2


def test_other_weights_take_the_program_but_are_verified_again(emitted, monkeypatch):
    import exporters.program

    verified = []
    real = exporters.program.verify
    monkeypatch.setattr(exporters.program, "verify", lambda *a: verified.append(1) or real(*a))
    export(tiny_task())
    task = tiny_task()
    with torch.no_grad():
        task.model[0].weight.mul_(2)
    export(task)
    assert (len(emitted), len(verified)) == (1, 2)


def test_a_damaged_file_is_made_anew(emitted):
    task = task_of(small())
    first = build(task, Plan.everything(task), ("train_step",))
    (path,) = cache.folder().iterdir()
    path.write_bytes(path.read_bytes()[:-10] + b"damage" + bytes(4))
    assert build(task, Plan.everything(task), ("train_step",)).pte == first.pte
    assert len(emitted) == 2


def test_a_folder_that_cannot_be_written_is_done_without(emitted, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    task = task_of(small())
    for _ in range(2):
        build(task, Plan.everything(task), ("train_step",))
    assert len(emitted) == 2
