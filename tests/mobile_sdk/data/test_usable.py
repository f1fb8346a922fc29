"""Samples that break a contract are left out by themselves, and others are brought into the task's dtypes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mobile_sdk.data import ArrayDataset, SampleStore
from mobile_sdk.data.convert import as_dataset
from mobile_sdk.data.fit import fit_dtype
from mobile_sdk.data.usable import usable_samples
from mobile_sdk.errors import DataError
from mobile_sdk.manifest import InputContract

CONTRACT = InputContract((4,), "float32", (), "int64", None, "", ("a", "b", "c"))
ALL = np.arange


def good(n: int) -> tuple[np.ndarray, np.ndarray]:
    return np.ones((n, 4), np.float32), ALL(n) % 3


def test_one_bad_sample_of_forty_is_left_out_and_named() -> None:
    x, y = good(600)
    x[7, 2] = np.nan
    y[300] = 9
    samples = usable_samples(ArrayDataset(x, y), CONTRACT)
    assert len(samples) == 598
    assert list(samples.skipped) == [7, 300]
    assert "sample 7 has an x that is not finite" in samples.skipped[7]
    assert "sample 300 has the label 9" in samples.skipped[300]
    picked, _ = samples.batch(ALL(len(samples)))
    assert np.isfinite(picked).all()


def test_a_dataset_without_one_usable_sample_is_refused_with_the_first_reason() -> None:
    x, y = good(3)
    with pytest.raises(DataError, match="sample 0 has an x that is not finite"):
        usable_samples(ArrayDataset(x * np.nan, y), CONTRACT)
    with pytest.raises(DataError, match=r"sample 0 has x of float32 and shape \(2,\); the task takes"):
        usable_samples(ArrayDataset(x[:, :2], y), CONTRACT)


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int64, np.uint8, np.bool_])
def test_numbers_of_other_widths_become_the_tasks(dtype: type) -> None:
    x, y = good(5)
    samples = usable_samples(ArrayDataset(x.astype(dtype), y.astype(np.int32)), CONTRACT)
    for array, wanted in zip(samples.batch(ALL(5)), (x, y), strict=True):
        assert array.dtype == wanted.dtype
        np.testing.assert_array_equal(array, wanted)


def test_what_would_change_is_refused() -> None:
    with pytest.raises(DataError, match="y is float64; the task takes int64"):
        fit_dtype(np.array([0.5]), "int64", "y")
    with pytest.raises(DataError, match="x has values that float32 cannot hold"):
        fit_dtype(np.array([2**24 + 1]), "float32", "x")
    with pytest.raises(DataError, match="y has values that int64 cannot hold"):
        fit_dtype(np.array([2**63], np.uint64), "int64", "y")


class FromTheApp:
    """A dataset of somebody's own that gives, or raises, ``answer``."""

    def __init__(self, answer: Any) -> None:
        self._answer = answer

    def __len__(self) -> int:
        return 3

    def batch(self, indices: np.ndarray) -> Any:
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (RuntimeError("Anna, 71 kg"), r"batch\(\) of FromTheApp fails in .*test_usable\.py, line \d+: RuntimeError$"),
        (np.ones((3, 4)), r"gives a ndarray; it must give a pair \(x, y\)"),
        (good(2), "gives 2 x and 2 y for 1 indices"),
        (([[1, 2], [3]], [0, 1]), "the samples of x differ in shape"),
        ((np.float32(1), np.int64(0)), "x is a single value; its first axis must count samples"),
    ],
)
def test_what_is_wrong_with_an_apps_own_dataset_is_a_sentence_without_its_samples(answer: Any, words: str) -> None:
    with pytest.raises(DataError, match=words) as raised:
        usable_samples(FromTheApp(answer), CONTRACT)
    assert "Anna" not in str(raised.value), "the coordinator is told the sentence"


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ({"x": [[1, 2], [3]], "y": [0, 1]}, "the samples of x differ in shape"),
        ({"x": 3.0, "y": 1}, r"x is a single value; .* give a batch of one, x\[None\]"),
        (([[1.0] * 4] * 5, [0] * 5), "sample 0 is a list; .* make them arrays"),
    ],
)
def test_lists_and_single_values_in_place_of_arrays_are_told_so(source: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        usable_samples(as_dataset(source), CONTRACT)


def test_a_dict_of_arrays_is_a_dataset_and_other_dicts_are_told_so() -> None:
    x, y = good(5)
    np.testing.assert_array_equal(as_dataset({"x": x, "y": y}).batch(ALL(5))[0], x)
    with pytest.raises(DataError, match=r"must have the keys 'x' and 'y', not \['images', 'labels'\]"):
        as_dataset({"images": x, "labels": y})


def test_samples_are_removed_for_good_and_the_others_stay(tmp_path: Path) -> None:
    with SampleStore(tmp_path, max_samples=80) as store:
        for n in range(40):
            store.append(np.full(4, n, np.float32), n % 3)
        before = store.snapshot()
        store.remove([0, 11, 39])
        with pytest.raises(IndexError, match="there is no sample 37; there are 37"):
            store.remove([1, 37])
        assert store.snapshot().batch(ALL(37))[0][:, 0].tolist() == [n for n in range(40) if n not in (0, 11, 39)]
        assert before.batch(ALL(40))[0][:, 0].tolist() == list(range(40)), "a snapshot does not change"
        store.append(np.full(4, 40, np.float32), 1)
        assert len(store) == 38
    again = SampleStore(tmp_path)
    assert again.batch(np.array([37]))[0][0, 0] == 40
    assert not any(np.float32(11).tobytes() * 4 in path.read_bytes() for path in tmp_path.glob("*.samples"))


def test_a_store_that_knows_the_contract_takes_nothing_else_and_keeps_its_dtypes(tmp_path: Path) -> None:
    with SampleStore(tmp_path) as store:
        store.use_contract(CONTRACT)
        store.append([1, 2, 3, 4], 0)
        with pytest.raises(DataError, match="not finite"):
            store.append([1, 2, np.nan, 4], 0)
        with pytest.raises(DataError, match="has the label 3"):
            store.append([1, 2, 3, 4], 3)
        assert [array.dtype for array in store.batch(np.array([0]))] == [np.float32, np.int64]
        assert len(store) == 1
