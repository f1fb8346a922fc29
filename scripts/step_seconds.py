"""Processor seconds of a training step for each program in a folder, interpreted, as JSON; needs the SDK alone."""

from __future__ import annotations

import json
import statistics
import sys
import time
from pathlib import Path

import numpy as np

from mobile_sdk import load_engine, safetensors
from mobile_sdk.weights import map_weights

STEPS = 5


def main(folder: Path) -> dict[str, float]:
    """Medians of some steps, after one that is not counted, by the name of the program's folder."""
    seconds = {}
    for path in sorted(folder.iterdir()):
        engine = load_engine(path, "interpreted")
        arrays, _ = safetensors.loads((path / "expected.safetensors").read_bytes())
        weights = map_weights(engine.manifest.layout, [path / "weights.safetensors"])
        batch = (arrays["x"], arrays["y"], np.asarray(arrays["sample_weight"]))
        took = []
        for _ in range(STEPS + 1):
            begun = time.process_time()
            engine.train_step(*batch, weights)
            took.append(time.process_time() - begun)
        seconds[path.name] = statistics.median(took[1:])
        engine.close()
    return seconds


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))))
