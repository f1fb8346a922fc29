"""The digits are shared out as real devices hold data: unevenly, without overlap, and without torch."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from exporters.zoo import digits_data


def test_samples_are_in_the_tasks_range() -> None:
    (x, y), (test_x, test_y) = digits_data.load()
    assert x.shape == (1437, 1, 8, 8)
    assert test_x.shape == (360, 1, 8, 8)
    assert x.dtype == np.float32
    assert y.dtype == test_y.dtype == np.int64
    assert (x.min(), x.max()) == (0.0, 1.0)
    assert set(np.unique(test_y)) == set(range(10))


def test_the_data_are_scikit_learns() -> None:
    from sklearn.datasets import load_digits

    (x, y), (test_x, test_y) = digits_data.load()
    ours = {(*image.ravel(), label) for image, label in zip([*x, *test_x], [*y, *test_y], strict=True)}
    theirs = load_digits()
    assert ours == {(*image, label) for image, label in zip(theirs.data / 16, theirs.target, strict=True)}


@pytest.mark.parametrize("of", [1, 8, 40])
def test_parts_are_disjoint_and_cover_everything(of: Any) -> None:
    parts = [digits_data.part(i, of=of) for i in range(of)]
    rows = sorted((*x.ravel(), y) for xs, ys in parts for x, y in zip(xs, ys, strict=True))
    (x, y), _ = digits_data.load()
    assert rows == sorted((*image.ravel(), label) for image, label in zip(x, y, strict=True))
    assert min(len(ys) for _, ys in parts) >= 20


def test_parts_differ_in_their_classes() -> None:
    counts = np.array([np.bincount(digits_data.part(i)[1], minlength=10) for i in range(8)])
    shares = counts / counts.sum(1, keepdims=True)
    assert shares.max(1).mean() > 0.25
    even = np.array([np.bincount(digits_data.part(i, alpha=1e6)[1], minlength=10) for i in range(8)])
    assert (even / even.sum(1, keepdims=True)).max() < 0.15


def test_a_part_is_the_same_in_every_process() -> None:
    code = "from exporters.zoo.digits_data import part; x, y = part(3); print(y.tolist(), float(x.sum()))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    x, y = digits_data.part(3)
    assert printed.strip() == f"{y.tolist()} {float(x.sum())}"
    assert not np.array_equal(y, digits_data.part(3, seed=1)[1])


@pytest.mark.parametrize("arguments", [(8, 8), (-1, 8), (0, 0), (0, 72), (0, 8, 0.0)])
def test_a_part_that_does_not_exist_is_refused(arguments: Any) -> None:
    with pytest.raises(ValueError, match=r"part|alpha"):
        digits_data.part(*arguments)


def test_a_device_reads_its_data_without_torch() -> None:
    code = (
        "import sys; from exporters.zoo import digits_data; digits_data.part(0); "
        "print([m for m in ('torch', 'sklearn', 'executorch') if m in sys.modules]); "
        "print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])"
    )
    lines = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split("\n")
    assert lines[0] == "[]"
    assert int(lines[1]) < 90_000
