"""Whatever an app has its samples in can be trained on, and the first bad sample is named."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mobile_sdk.data import ArrayDataset, FolderDataset, SampleStore, SequenceDataset, as_dataset, check, load_dataset
from mobile_sdk.errors import DataError, StorageError
from mobile_sdk.manifest import InputContract

CONTRACT = InputContract((3,), "float32", (), "int64", range=(0.0, 1.0), normalisation="x / 255", labels=("a", "b"))


def samples(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.random((n, 3), np.float32), rng.integers(0, 2, n)


def all_of(dataset: Any) -> tuple[np.ndarray, np.ndarray]:
    return dataset.batch(np.arange(len(dataset)))


def test_arrays_sequences_and_folders_give_the_same_samples(tmp_path: Path) -> None:
    x, y = samples(7)
    (tmp_path / "mixed").mkdir()
    np.savez(tmp_path / "mixed" / "a.npz", x=x[:3], y=y[:3])
    np.save(tmp_path / "mixed" / "b.x.npy", x[3:])
    np.save(tmp_path / "mixed" / "b.y.npy", y[3:])
    sources = [(x, y), list(zip(x, y, strict=True)), tmp_path / "mixed", str(tmp_path / "mixed"), ArrayDataset(x, y)]
    for source in [*(as_dataset(source) for source in sources), load_dataset(str(tmp_path / "mixed"))]:
        got_x, got_y = source.batch(np.array([6, 0, 3]))
        assert len(source) == 7
        np.testing.assert_array_equal(got_x, x[[6, 0, 3]])
        np.testing.assert_array_equal(got_y, y[[6, 0, 3]])


def test_tables_are_arrays() -> None:
    """As of pandas: they give an array, and are no sequence of samples."""

    class Table:
        def __init__(self, array: np.ndarray) -> None:
            self._array, self.shape = array, array.shape

        def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
            return np.asarray(self._array, dtype)

        def __len__(self) -> int:
            return len(self._array)

        def __getitem__(self, column: str) -> Any:
            raise KeyError(column)

    x, y = samples(7)
    for got, wanted in zip(all_of(as_dataset((Table(x), Table(y)))), (x, y), strict=True):
        np.testing.assert_array_equal(got, wanted)


def test_what_is_no_dataset_is_refused_with_the_choices(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="sequence of pairs"):
        as_dataset(3)
    with pytest.raises(DataError, match="holds no samples"):
        as_dataset(tmp_path)
    with pytest.raises(DataError, match=r"there is no folder .*nowhere"):
        as_dataset(str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match="sample 1 is a int"):
        SequenceDataset(cast(Any, [(1, 2), 5])).batch(np.arange(2))
    np.save(tmp_path / "x.npy", np.zeros(3))
    with pytest.raises(DataError, match=r"y\.npy"):
        FolderDataset(tmp_path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda x, y: x.__setitem__((401, 1), np.nan), r"sample 401 has an x that is not within \[0, 1\] \(x / 255\)"),
        (lambda x, y: x.__setitem__((300, 0), 2.0), r"sample 300 has an x that is not within"),
        (lambda x, y: y.__setitem__(17, 2), "sample 17 has the label 2; labels are 0 to 1"),
    ],
)
def test_the_first_sample_that_breaks_the_contract_is_named(damage: Any, message: str) -> None:
    x, y = samples(500)
    check(ArrayDataset(x, y), CONTRACT)
    damage(x, y)
    x[450] = -1
    with pytest.raises(DataError, match=message):
        check(ArrayDataset(x, y), CONTRACT)


def test_a_sample_of_another_shape_or_dtype_is_named_in_a_sequence() -> None:
    x, y = samples(300)
    items = [(a, int(b)) for a, b in zip(x, y, strict=True)]
    check(SequenceDataset(items), CONTRACT)
    items[270] = (np.zeros(4, np.float32), 0)
    with pytest.raises(
        DataError, match=r"sample 270 has x of float32 and shape \(4,\); the task takes float32 and \(3,\)"
    ):
        check(SequenceDataset(items), CONTRACT)


def test_a_check_takes_what_training_takes() -> None:
    x, y = samples(3)
    check(ArrayDataset(x.astype(np.float64), y.astype(np.uint8)), CONTRACT)
    with pytest.raises(DataError, match=r"y is text \(<U\d+\); .* a label is its number, 0 for a to 1 for b"):
        check(ArrayDataset(x, y.astype(str)), CONTRACT)


# The on-device store.


@settings(max_examples=25, deadline=None)
@given(count=st.integers(0, 60), cap=st.one_of(st.none(), st.integers(1, 40)), restart=st.integers(0, 59))
def test_a_store_holds_the_newest_samples_over_a_restart(
    count: int, cap: int | None, restart: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("samples")
    x, y = samples(60)
    store = SampleStore(folder, max_samples=cap)
    for i in range(count):
        if i == restart:
            store.close()
            store = SampleStore(folder, max_samples=cap)
        store.append(x[i], y[i])
    kept = slice(max(0, count - (cap or count)), count)
    assert len(store) == len(x[kept])
    if count:
        got_x, got_y = all_of(store)
        np.testing.assert_array_equal(got_x, x[kept])
        np.testing.assert_array_equal(got_y, y[kept])
    store.close()


def test_a_store_never_takes_more_bytes_than_its_limit(tmp_path: Path) -> None:
    x, y = samples(500)
    limit = 1000
    with SampleStore(tmp_path, max_samples=None, max_bytes=limit) as store:
        for i in range(500):
            store.append(x[i], y[i])
            assert sum(path.stat().st_size for path in tmp_path.glob("*.samples")) <= limit
        got, _ = all_of(store)
    record = 4 + 12 + 8
    assert len(got) >= limit // record * 3 // 4, "at most an eighth and a bit is dropped at once"
    np.testing.assert_array_equal(got, x[-len(got) :])


def test_a_snapshot_does_not_change_when_samples_come_and_go(tmp_path: Path) -> None:
    x, y = samples(100)
    with SampleStore(tmp_path, max_samples=16) as store:
        for i in range(20):
            store.append(x[i], y[i])
        snapshot = store.snapshot()
        before = all_of(snapshot)[0].copy()
        for i in range(20, 100):
            store.append(x[i], y[i])
        np.testing.assert_array_equal(all_of(snapshot)[0], before)
        np.testing.assert_array_equal(all_of(store)[0], x[84:])


def test_another_process_may_read_but_not_append(tmp_path: Path) -> None:
    x, y = samples(3)
    with SampleStore(tmp_path) as store, SampleStore(tmp_path) as reader:
        store.append(x[0], y[0])
        assert len(reader) == 1
        with pytest.raises(StorageError, match="another process appends"):
            reader.append(x[1], y[1])
        store.append(x[1], y[1])
        assert len(reader) == 2


def test_a_sample_unlike_the_others_is_refused(tmp_path: Path) -> None:
    x, y = samples(2)
    with SampleStore(tmp_path) as store:
        store.append(x[0], y[0])
        with pytest.raises(DataError, match=r"this store holds float32 of shape \(3,\)"):
            store.append(x[1].astype(np.float64), y[1])
        assert len(store) == 1


def test_a_damaged_record_is_left_out(tmp_path: Path) -> None:
    x, y = samples(5)
    with SampleStore(tmp_path) as store:
        for i in range(5):
            store.append(x[i], y[i])
    (path,) = tmp_path.glob("*.samples")
    content = bytearray(path.read_bytes())
    content[2 * 24 + 7] ^= 1
    path.write_bytes(content)
    np.testing.assert_array_equal(all_of(SampleStore(tmp_path))[0], x[[0, 1, 3, 4]])


WRITER = """
import sys, numpy as np
from mobile_sdk.data import SampleStore
store = SampleStore(sys.argv[1], max_samples=5000)
for i in range(10**6):
    store.append(np.full(50, i, np.float32), i)
    print(i, flush=True)
"""


def test_a_killed_process_loses_no_sample_that_append_returned_for(tmp_path: Path) -> None:
    told = -1
    for _ in range(3):
        process = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        for _ in range(400):
            told = int(process.stdout.readline())
        process.kill()
        rest = process.stdout.read()
        process.wait()
        complete = rest.split("\n")[:-1]
        told = int(complete[-1]) if complete else told
        x, y = all_of(SampleStore(tmp_path, max_samples=5000))
        assert (x == y[:, None]).all()
        assert told in y[-2:], "all that was told, and at most one more"
