"""A task that has changed since a run began is told from the same task, and by what."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from exporters import Task
from exporters.identity import differences, identify, identify_reference
from exporters.source_files import changed_files


def _cross_entropy(output: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(output, y, reduction="none")


def _smoothed(output: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(output, y, reduction="none") * 0.5


def task(*, hidden: int = 8, inputs: int = 4, seed: int = 0, loss: Any = _cross_entropy, **options: Any) -> Task:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, 3))
    return Task(model, loss, torch.zeros(4, inputs), torch.zeros(4, dtype=torch.int64), **options)


def test_other_initial_weights_are_the_same_task() -> None:
    assert differences(identify(task()), identify(task(seed=1))) == []


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"hidden": 32}, r"'0\.weight' had the shape \(8, 4\) and has \(32, 4\)"),
        ({"inputs": 5}, r"'0\.weight' had the shape \(8, 4\) and has \(8, 5\); x was float32 of shape \(4,\) and is"),
        ({"loss": _smoothed}, "code of its model, loss or metrics"),
        ({"labels": ["a", "b", "c"]}, r"labels was \[\] and is \['a', 'b', 'c'\]"),
        ({"local": ["2"]}, "local was"),
    ],
    ids=["hidden", "inputs", "loss", "labels", "local"],
)
def test_what_has_changed_is_named(other: dict[str, Any], words: str) -> None:
    with_words = "; ".join(differences(identify(task()), identify(task(**other))))
    assert with_words
    assert re.search(words, with_words), with_words


def test_code_is_not_compared_between_releases() -> None:
    before = identify(task()) | {"runtime": "ftte 0.0.1"}
    assert differences(before, identify(task(loss=_smoothed))) == []


def test_a_users_changed_source_is_noticed_without_loading_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "__init__.py").touch()
    (tmp_path / "shop" / "net.py").write_text("from torch import nn\n\nmodel = nn.Linear(4, 3)\n")
    (tmp_path / "shop" / "tiny.py").write_text(
        "import torch\nfrom exporters import Task\nfrom .net import model\n"
        "def loss(o, y): return torch.nn.functional.cross_entropy(o, y, reduction='none')\n"
        "task = Task(model, loss, torch.zeros(4, 4), torch.zeros(4, dtype=torch.int64))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    files = identify_reference("shop.tiny:task")["files"]
    for name in ("shop.tiny", "shop.net", "shop"):
        assert name in files
        del sys.modules[name]
    assert not any(name.startswith(("torch", "exporters", "pytest", "__")) for name in files)
    assert changed_files({name: files[name] for name in ("shop.tiny", "shop.net")}) == []
    (tmp_path / "shop" / "net.py").write_text("raise RuntimeError('this must not be imported')\n")
    assert changed_files({name: files[name] for name in ("shop.tiny", "shop.net")}) == ["shop.net"]
    (tmp_path / "shop" / "tiny.py").unlink()
    assert changed_files({name: files[name] for name in ("shop.tiny", "shop.net")}) == ["shop.tiny", "shop.net"]
