"""
Samples of the phone: a few handwritten digits to begin with, and what is drawn on it.

The digits to begin with stand for what a phone has collected before. Every phone takes other ones, some digits more
often than others, as real phones differ.
"""

from __future__ import annotations

import json
import secrets
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mobile_sdk import SampleStore

__all__ = ["Samples", "starter"]

STARTER_FILE = Path(__file__).resolve().parents[2] / "assets" / "digits.npz"
_STARTERS = 160
_CONCENTRATION = 1.0
_MOST = 2000

Pictures = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


def starter(seed: int, count: int = _STARTERS) -> tuple[Pictures, Labels]:
    """
    Digits for a phone to begin with.

    Args:
        seed: another for every phone.
        count: how many.

    Returns:
        x float32, shape (count, 1, 8, 8), in [0, 1], and y int64, shape (count,): classes in
        proportions drawn from Dirichlet(1).

    """
    with np.load(STARTER_FILE, allow_pickle=False) as file:
        pixels, labels = file["pixels"], file["labels"]
    random = np.random.default_rng(seed)
    shares = random.dirichlet(np.full(10, _CONCENTRATION))
    chance = shares[labels] / np.bincount(labels, minlength=10)[labels]
    chosen = random.choice(len(labels), size=count, replace=False, p=chance / chance.sum())
    return (pixels[chosen].reshape(-1, 1, 8, 8) / 16).astype(np.float32), labels[chosen].astype(np.int64)


class Samples:
    """
    The samples of this phone, on its disk; the oldest go when there are too many.

    Args:
        folder: where they are kept.
        seed: decides what the phone begins with; drawn at random if left out, since nothing else differs between two
            phones with the same app (their folders have the same path).

    """

    def __init__(self, folder: Path, seed: int | None = None) -> None:
        self.store = SampleStore(folder, max_samples=_MOST)
        self._count = folder / "drawn.json"
        self.drawn = 0
        if self._count.exists():
            self.drawn = int(json.loads(self._count.read_text("utf-8")))
        if len(self.store) == 0:
            for x, y in zip(*starter(secrets.randbits(64) if seed is None else seed), strict=True):
                self.store.append(x, y)
            self.store.flush()

    def __len__(self) -> int:
        return len(self.store)

    def keep(self, x: Pictures, label: int) -> None:
        """Add a drawing, shape (1, 8, 8), and what it is."""
        self.store.append(x, np.int64(label))
        self.store.flush()
        self.drawn += 1
        part = self._count.with_suffix(".part")
        part.write_text(json.dumps(self.drawn), "utf-8")
        part.replace(self._count)

    def close(self) -> None:
        """Let another process append."""
        self.store.close()
