"""Limits of the on-device store, at their boundaries."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mobile_sdk.data import SampleStore
from mobile_sdk.errors import DataError, StorageError

X, Y = np.zeros(3, np.float32), np.int64(1)
RECORD = 4 + 12 + 8  # CRC, x, y


def open_files() -> int:
    """Of this process; 0 where the system does not list them."""
    listing = Path("/proc/self/fd")
    return sum(1 for _ in listing.iterdir()) if listing.exists() else 0


def test_a_sample_as_large_as_the_store_fits_and_a_larger_one_is_refused(tmp_path: Path) -> None:
    with SampleStore(tmp_path / "fits", max_bytes=RECORD) as store:
        store.append(X, Y)
        store.append(X + 1, Y)
        assert len(store) == 1
        np.testing.assert_array_equal(store.batch(np.array([0]))[0], [X + 1])
    with (
        SampleStore(tmp_path / "none", max_bytes=RECORD - 1) as store,
        pytest.raises(DataError, match=f"a sample takes {RECORD} bytes, more than the store's limit of {RECORD - 1}"),
    ):
        store.append(X, Y)


def test_a_refused_writer_leaves_no_file_open_and_the_first_one_its_place(tmp_path: Path) -> None:
    with SampleStore(tmp_path) as first:
        first.append(X, Y)
        second = SampleStore(tmp_path)
        before = open_files()
        with pytest.raises(StorageError, match="another process appends"):
            second.append(X, Y)
        assert open_files() == before
    second.append(X, Y)
    assert len(second) == 2
    second.close()


def test_closing_gives_every_file_back(tmp_path: Path) -> None:
    before = open_files()
    store = SampleStore(tmp_path)
    store.append(X, Y)
    lock, writing = store._lock, store._writing
    store.close()
    assert lock is not None
    assert lock.closed
    assert writing is not None
    assert writing[1].closed
    assert open_files() == before
    store.close()


@pytest.mark.parametrize("limit", ["max_samples", "max_bytes"])
def test_a_limit_below_one_is_refused(limit: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"{limit} is 0; it must be at least 1"):
        SampleStore(tmp_path, **{limit: 0})
    SampleStore(tmp_path, **{limit: 1}).close()
