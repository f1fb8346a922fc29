"""
A part of a processor for a process: Linux's control groups, of either version. Making them takes root.

Measured with version 1; the few lines for version 2 were never run.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

__all__ = ["limited_group"]

ROOT = Path("/sys/fs/cgroup")
# Microseconds. In shorter ones, what Linux leaves unused of a small quota (a millisecond a processor) would count.
PERIOD = 100_000


@contextlib.contextmanager
def limited_group(name: str, processors: float) -> Iterator[Path]:
    """
    A group whose processes get so much of the processors together; writing a process id to the path puts it in.

    It is gone at the end, when its processes must have ended.

    Raises:
        OSError: if this system or user may not make groups.

    """
    quota = max(1000, round(processors * PERIOD))
    period = round(quota / processors)
    if (ROOT / "cgroup.controllers").exists():
        group = ROOT / name
        (ROOT / "cgroup.subtree_control").write_text("+cpu")
        group.mkdir(exist_ok=True)
        (group / "cpu.max").write_text(f"{quota} {period}")
    else:
        group = ROOT / "cpu" / name
        group.mkdir(exist_ok=True)
        (group / "cpu.cfs_period_us").write_text(str(period))
        (group / "cpu.cfs_quota_us").write_text(str(quota))
    try:
        yield group / "cgroup.procs"
    finally:
        for _ in range(50):
            with contextlib.suppress(OSError):
                group.rmdir()
                break
            time.sleep(0.1)  # an ended process leaves its group a little later
