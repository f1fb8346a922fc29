"""
What a program's self-check costs a device: time in each engine, bytes of the manifest, memory.

``python -m benchmarks.step.self_check [TASK ...] [--json FILE]`` exports tasks of the zoo, everything trained. The time
is that of the whole check, drawing of weights and input included, with one thread; it is spent once per program and
build of the runtime. Memory is the anonymous growth of a fresh process of the native engine, of the check and of three
training steps with plain SGD.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from exporters import Plan, load_task
from exporters.program.build import build
from exporters.program.self_check import make_self_check
from exporters.quiet import quiet
from exporters.zoo import TASKS
from mobile_sdk import load_engine
from mobile_sdk.engines import self_check

CHILD = """
import sys
from pathlib import Path
import numpy as np
from exporters.memory.measure_child import _peak, _status
from mobile_sdk import load_engine
from mobile_sdk.engines import self_check
from mobile_sdk.weights import map_weights
folder = Path(sys.argv[1])
engine = load_engine(folder)
manifest, check = engine.manifest, engine.manifest.check
before = _status("RssAnon")
def train():
    weights = map_weights(manifest.layout, [folder / "weights.safetensors"], manifest.baked)
    weights |= {name: np.array(weights[name]) for name in manifest.trained}
    for _ in range(3):
        _, _, gradients = engine.train_step(*self_check.draw_batch(manifest, check), weights)
        for name, gradient in gradients.items():
            weights[name][manifest.trained.selector(name)] -= np.float32(1e-6) * gradient
print(_peak((lambda: self_check.run(engine, folder)) if sys.argv[2] == "check" else train) - before)
"""


def cost(name: str) -> dict[str, Any]:
    """Of one task of the zoo."""
    with quiet(), tempfile.TemporaryDirectory() as folder:
        task = load_task(TASKS[name])
        program = build(task, Plan.everything(task))
        without = len(program.manifest.to_bytes())
        began = time.perf_counter()
        check = make_self_check(task, program)
        made = time.perf_counter() - began
        program = program.with_check(check)
        program.save(folder)
        result: dict[str, Any] = {
            "task": name,
            "draws": check.seed + 1,
            "export_seconds": made,
            "manifest_bytes": len(program.manifest.to_bytes()),
            "check_bytes": len(program.manifest.to_bytes()) - without,
            "weights": program.manifest.layout.size,
        }
        for engine_name in ("native", "interpreted"):
            engine = load_engine(folder, engine_name)
            began = time.perf_counter()
            self_check.run(engine, Path(folder))
            result[f"{engine_name}_seconds"] = time.perf_counter() - began
            engine.close()
        for what in ("check", "train"):
            command = [sys.executable, "-c", CHILD, folder, what]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            result[f"{what}_memory_bytes"] = int(done.stdout)
    return result


def main() -> None:
    """Print a table as it grows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="*", default=[*TASKS])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    print(f"{platform.processor() or platform.machine()}, one thread")
    print(f"{'task':22}{'weights':>10}{'bytes':>8}{'native':>10}{'interpreted':>13}{'check':>10}{'training':>10}")
    results = []
    for name in options.tasks:
        r = cost(name)
        results.append(r)
        print(
            f"{name:22}{r['weights']:>10}{r['check_bytes']:>8}{1e3 * r['native_seconds']:>7.0f} ms"
            f"{1e3 * r['interpreted_seconds']:>10.0f} ms{r['check_memory_bytes'] / 1e6:>7.1f} MB"
            f"{r['train_memory_bytes'] / 1e6:>7.1f} MB",
            flush=True,
        )
    if options.json is not None:
        options.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
