"""
What a training step takes on a device, measured rather than predicted.

The planned arena is not the memory (a program that plans 6 MB can grow a process by 25 MB: the delegate's workspace
lies outside the plan), so a fresh process of the native runtime trains and is watched. Its growth is counted
in anonymous memory, from "engine imported, one thread, a one-operator program already run" to the peak of a step,
with the trained weights, gradients, momentum and input buffers of :mod:`exporters.memory.measure_child`. Frozen
weights are mapped from their file, so they are not anonymous: the kernel can drop them at any time.

Before the growth begins, the process gives its free memory back: how much of it lies at the end of the heap depends
on as little as an environment variable, and a step would take it first.

Peaks inside a step come from the kernel: after two steps of warming up the high-water mark of resident memory
is reset (``5`` into ``/proc/self/clear_refs``), more steps run, and ``VmHWM`` less the file-backed pages is the peak,
if those stayed as many.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch.fx.experimental.proxy_tensor import make_fx

import mobile_sdk

from ..emit.pte import emit
from ..errors import ExportError
from ..location import PACKAGE_FOLDER
from . import measure_child
from .footprint import Footprint

if TYPE_CHECKING:
    from ..program.build import Program

__all__ = ["measure"]


def measure(program: Program) -> Footprint:
    """
    Train in a fresh process and report its growth.

    Raises:
        ExportError: if the process fails; Linux is needed.

    """
    with tempfile.TemporaryDirectory() as folder:
        program.save(folder)
        first = Path(folder) / "first.pte"
        first.write_bytes(_one_operator())
        command = [sys.executable, "-m", measure_child.__name__, folder, str(first)]
        # One arena and one thread, as in a device's process; where this package lies, for a fresh interpreter.
        paths = [str(PACKAGE_FOLDER.parent), str(Path(str(mobile_sdk.__file__)).resolve().parent.parent)]
        environment = os.environ | {
            "MALLOC_ARENA_MAX": "1",
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            "PYTHONHASHSEED": "0",
            "PYTHONPATH": os.pathsep.join([*dict.fromkeys(paths), os.environ.get("PYTHONPATH", "")]),
        }
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        reason = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        raise ExportError(f"the program's memory cannot be measured: {reason[0]}")
    return Footprint(**json.loads(done.stdout))


@functools.cache
def _one_operator() -> bytes:
    """A program of one delegated operator, which sets up all that the first run of any program sets up."""
    graph = make_fx(lambda x: (torch.tanh(x),), tracing_mode="fake")(torch.zeros(1, 8))
    return emit({"first": graph}).pte
