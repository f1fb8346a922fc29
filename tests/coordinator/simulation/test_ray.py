"""Training on a Ray cluster that is started on this host."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from coordinator.errors import CoordinatorError
from coordinator.simulation.simulate import simulate

from .test_simulate import digits

RAY = Path(sys.executable).with_name("ray")
PORT = 26379


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A cluster of one node."""
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'ftte[ray]'")
    start = [str(RAY), "start", "--head", f"--port={PORT}", "--num-cpus=2", "--include-dashboard=false"]
    subprocess.run(start, check=True, capture_output=True)
    try:
        yield f"127.0.0.1:{PORT}"
    finally:
        subprocess.run([RAY, "stop", "--force"], check=False, capture_output=True)


@pytest.mark.full
def test_a_cluster_gives_what_local_workers_give(address: str, tmp_path: Path) -> None:
    """To the last bit."""
    results = [
        simulate(digits(), workers=0, plans=tmp_path / "plans"),
        simulate(digits(), ray=address, plans=tmp_path / "plans"),
    ]
    for result in results:
        del result["machine"]
    assert results[0] == results[1]


def test_without_ray_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It is an extra."""
    from coordinator.simulation.compute.pool import ray_pool
    from coordinator.simulation.compute.workshop import WorkshopFiles

    monkeypatch.setitem(sys.modules, "ray", None)
    files = WorkshopFiles("a:b", {}, tmp_path / "x.npy", tmp_path / "y.npy")
    with pytest.raises(CoordinatorError, match=r"pip install 'ftte\[ray\]'"), ray_pool(files, "auto"):
        pass
