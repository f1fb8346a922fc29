"""
Write ``android_demo/assets/digits.npz``: the handwritten digits that a phone of the demo begins with.

``python android_demo/package/starter.py``; needs scikit-learn. The training part of ``exporters.zoo.digits_data``, so
that the coordinator's held-out digits are on no phone.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from exporters.zoo import digits_data

if __name__ == "__main__":
    x, y = digits_data.load()[0]
    path = Path(__file__).resolve().parents[1] / "assets" / "digits.npz"
    np.savez_compressed(path, pixels=(x.reshape(-1, 64) * 16).astype(np.uint8), labels=y.astype(np.uint8))
    print(path)
