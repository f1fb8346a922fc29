"""What is passed to a program is checked and padded before it is called."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from mobile_sdk.engines.call import Call
from mobile_sdk.errors import ProgramError
from mobile_sdk.layout import Layout, Parameter, Subset
from mobile_sdk.manifest import FileEntry, InputContract, Manifest, Memory, Method, TensorSpec

BATCH = 4
LAYOUT = Layout([Parameter("w", (2, 3))])
X = TensorSpec("x", "", (BATCH, 2), "float32")
SUMS = (TensorSpec("loss", "", (), "float32"), TensorSpec("metric", "correct", (), "float32"))
METHODS = {
    "train_step": Method(
        (
            X,
            TensorSpec("y", "", (BATCH,), "int64"),
            TensorSpec("sample_weight", "", (BATCH,), "float32"),
            TensorSpec("weight", "w", (2, 3), "float32"),
        ),
        (*SUMS, TensorSpec("gradient", "w", (2, 3), "float32")),
        0,
    ),
    "predict": Method(
        (X, TensorSpec("weight", "w", (2, 3), "float32")), (TensorSpec("prediction", "", (BATCH, 3), "float32"),), 0
    ),
}
MANIFEST = Manifest(
    run="",
    serial=0,
    tier="small",
    task="test",
    files={"program.pte": FileEntry.of(b"")},
    methods=METHODS,
    layout=LAYOUT,
    subset=Subset(LAYOUT, {"w": None}),
    contract=InputContract((2,), "float32", (), "int64"),
    metrics=("correct",),
    micro_batch=BATCH,
    memory=Memory(0, 0, 0),
)
WEIGHTS = {"w": np.ones((2, 3), np.float32)}


def batch(count: int) -> dict[str, npt.NDArray[Any]]:
    return {
        "x": np.arange(2 * count, dtype=np.float32).reshape(count, 2),
        "y": np.arange(count),
        "sample_weight": np.full(count, 0.5, np.float32),
    }


@pytest.mark.parametrize("shape", [(), (0, 2), (BATCH + 1, 2), (BATCH + 1,), (0,)])
def test_a_batch_of_no_samples_or_too_many_is_refused_with_its_shape(shape: tuple[int, ...]) -> None:
    call = Call(MANIFEST, "predict")
    with pytest.raises(ProgramError, match=f"x must have 1 to {BATCH} samples, not the shape"):
        call.arguments({"x": np.zeros(shape, np.float32)}, WEIGHTS)


@pytest.mark.parametrize("count", [1, 2, 3, BATCH])
def test_a_short_batch_is_filled_with_its_own_samples_at_weight_0(count: int) -> None:
    given = batch(count)
    x, y, sample_weight, w = Call(MANIFEST, "train_step").arguments(given, WEIGHTS)
    repeated = [index % count for index in range(BATCH)]
    np.testing.assert_array_equal(x, given["x"][repeated])
    np.testing.assert_array_equal(y, given["y"][repeated])
    assert sample_weight.tolist() == [0.5] * count + [0.0] * (BATCH - count)
    assert w is WEIGHTS["w"]


def test_a_full_batch_is_passed_as_it_is_and_what_is_not_contiguous_is_copied() -> None:
    given = batch(BATCH)
    x, y, _, _ = Call(MANIFEST, "train_step").arguments(given, WEIGHTS)
    assert x is given["x"]
    assert y is given["y"]
    turned = {**given, "x": np.asfortranarray(given["x"])}
    (x, *_) = Call(MANIFEST, "train_step").arguments(turned, WEIGHTS)
    assert x.flags.c_contiguous
    np.testing.assert_array_equal(x, given["x"])


@pytest.mark.parametrize(
    ("role", "array", "message"),
    [
        ("x", np.zeros((2, 3), np.float32), r"'x' must be float32 of shape \(2, 2\), not float32 of shape \(2, 3\)"),
        ("x", np.zeros((2, 2), np.float64), "'x' must be float32 .* not float64"),
        ("y", np.zeros(3, np.int64), r"'y' must be int64 of shape \(2,\), not int64 of shape \(3,\)"),
        ("sample_weight", np.ones(2, np.float64), "'sample_weight' .* not float64"),
    ],
)
def test_an_array_of_another_shape_or_dtype_is_named(role: str, array: npt.NDArray[Any], message: str) -> None:
    with pytest.raises(ProgramError, match=message):
        Call(MANIFEST, "train_step").arguments({**batch(2), role: array}, WEIGHTS)


def test_missing_and_misshapen_weights_are_named() -> None:
    call = Call(MANIFEST, "predict")
    with pytest.raises(ProgramError, match="the weights lack the parameter 'w'"):
        call.arguments(batch(1), {})
    with pytest.raises(ProgramError, match=r"'w' .* not float32 of shape \(3, 2\)"):
        call.arguments(batch(1), {"w": np.ones((3, 2), np.float32)})


def test_results_are_named_by_the_manifest() -> None:
    gradient = np.ones((2, 3), np.float32)
    results = [np.asarray(2.5, np.float32), np.asarray(3.0, np.float32), gradient]
    loss, metrics, gradients = Call(MANIFEST, "train_step").sums(results)
    assert (loss, metrics) == (2.5, {"correct": 3.0})
    assert gradients["w"] is gradient


def test_a_method_that_the_program_lacks_is_named_with_those_that_it_has() -> None:
    with pytest.raises(ProgramError, match="no method 'evaluate', only predict, train_step"):
        Call(MANIFEST, "evaluate")
    with pytest.raises(ProgramError, match="only none"):
        Call(dataclasses.replace(MANIFEST, methods={}), "predict")
