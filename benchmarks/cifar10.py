"""
CIFAR-10 (Krizhevsky 2009) for the benchmarks, decoded once and kept under ``$XDG_CACHE_HOME/ftte/benchmarks``.

``--data`` names the standard folder ``cifar-10-batches-py``, or an ``.npz`` of JPEGs: ``<split>_jpeg`` (uint8, all
files after one another), ``<split>_offsets`` (int64, n + 1), ``<split>_labels`` (uint8), for the splits ``train`` and
``test``.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["CLASSES", "cache_folder", "load"]

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

Split = tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]


def cache_folder() -> Path:
    """Where benchmarks keep what they made."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ftte" / "benchmarks"


def load(source: Path) -> tuple[Split, Split]:
    """``(train_x, train_y), (test_x, test_y)``: x uint8 (n, 3, 32, 32), y int64 (n,); 50,000 and 10,000 samples."""
    source = source.resolve()
    name = hashlib.sha256(f"{source} {source.stat().st_mtime_ns}".encode()).hexdigest()[:16]
    kept = cache_folder() / f"cifar10-{name}.npz"
    if not kept.exists():
        arrays = _folder(source) if source.is_dir() else _jpegs(source)
        kept.parent.mkdir(parents=True, exist_ok=True)
        partial = kept.with_suffix(f".{os.getpid()}")
        with partial.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
        partial.replace(kept)
    with np.load(kept) as arrays:
        train = arrays["train_x"], arrays["train_y"].astype(np.int64)
        return train, (arrays["test_x"], arrays["test_y"].astype(np.int64))


def _folder(source: Path) -> dict[str, npt.NDArray[Any]]:
    def split(names: list[str]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        batches = [pickle.loads((source / name).read_bytes(), encoding="bytes") for name in names]
        x = np.concatenate([batch[b"data"] for batch in batches]).reshape(-1, 3, 32, 32)
        return x, np.concatenate([np.array(batch[b"labels"]) for batch in batches])

    train, test = split([f"data_batch_{i}" for i in range(1, 6)]), split(["test_batch"])
    return {"train_x": train[0], "train_y": train[1], "test_x": test[0], "test_y": test[1]}


def _jpegs(source: Path) -> dict[str, npt.NDArray[Any]]:
    from PIL import Image

    arrays = {}
    with np.load(source) as packed:
        for split in ("train", "test"):
            content, offsets = packed[f"{split}_jpeg"], packed[f"{split}_offsets"]
            images = [
                np.asarray(Image.open(io.BytesIO(content[a:b].tobytes()))) for a, b in itertools.pairwise(offsets)
            ]
            arrays[f"{split}_x"] = np.stack(images).transpose(0, 3, 1, 2)
            arrays[f"{split}_y"] = packed[f"{split}_labels"]
    return arrays
