"""
A training step in each engine of the SDK, side by side.

Programs of the zoo, one thread each, calls interleaved; medians and ratios to ``native``. The Android bridge runs on a
desktop JVM, so its figure is the price of the bridge, not of a phone. Writes ``benchmarks/results/engines.json``.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # the cases are those of the conformance suite

RESULTS = ROOT / "benchmarks" / "results" / "engines.json"


def main() -> None:
    """Measure, print and write."""
    import numpy as np

    from mobile_sdk import load_engine, safetensors
    from mobile_sdk.weights import map_weights
    from tests.android import jvm
    from tests.conformance.cases import CASES, EXPECTED, write

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*", default=["mlp", "digits", "cifar", "text", "gru", "mobilenet_v2-half"])
    parser.add_argument("--steps", type=int, default=15)
    options = parser.parse_args()
    if set(options.cases) - CASES.keys():
        parser.error(f"cases are {', '.join(CASES)}")
    engines = ["native", "interpreted"]
    if not jvm.missing():
        jvm.start()
        engines.append("android")
    rows: dict[str, Any] = {}
    print(
        f"{platform.processor() or platform.machine()}, numpy {np.__version__}, one thread, median of {options.steps}"
    )
    for case in options.cases:
        with tempfile.TemporaryDirectory() as name:
            folder = write(case, Path(name) / case)
            arrays, _ = safetensors.loads((folder / EXPECTED).read_bytes())
            loaded = {engine: load_engine(folder, engine) for engine in engines}
            manifest = loaded["native"].manifest
            weights = dict(map_weights(manifest.layout, [folder / "weights.safetensors"]))
            weights |= {trained: np.array(weights[trained]) for trained in manifest.subset}
            x, y, sample_weight = (arrays[role] for role in ("x", "y", "sample_weight"))
            seconds: dict[str, list[float]] = {engine: [] for engine in engines}
            for _ in range(options.steps + 2):
                for engine in engines:
                    began = time.perf_counter()
                    loaded[engine].train_step(x, y, sample_weight, weights)
                    seconds[engine].append(time.perf_counter() - began)
            median = {engine: statistics.median(values[2:]) for engine, values in seconds.items()}
            rows[case] = {engine: {"ms": 1e3 * s, "ratio": s / median["native"]} for engine, s in median.items()}
            print(
                case, *(f"{engine} {r['ms']:.2f} ms ({r['ratio']:.1f}x)" for engine, r in rows[case].items()), sep="  "
            )
            for each in loaded.values():
                each.close()
    jvm_used = importlib.util.find_spec("jnius") is not None and "android" in engines
    machine = {"machine": platform.machine(), "python": platform.python_version(), "numpy": np.__version__}
    RESULTS.write_text(json.dumps({"machine": machine, "jvm": jvm_used, "cases": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
