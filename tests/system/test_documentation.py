"""What the documentation shows runs as it is written."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from exporters.zoo.digits_data import part

from .conftest import BIN, Process, Site

ROOT = Path(__file__).parents[2]


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text(), re.MULTILINE | re.DOTALL)


def without_torch(folder: Path) -> dict[str, str]:
    """An environment in which modules of ``folder`` are found and torch, as on a device, is not."""
    (folder / "device").mkdir()
    (folder / "device" / "torch.py").write_text('raise ImportError("a device has no torch")\n')
    return {"PYTHONPATH": f"{folder / 'device'}:{folder}"}


def test_the_sensor_classifier_of_the_sdk_documentation(tmp_path: Path) -> None:
    written = {}
    for language in ("python", "toml"):
        for block in blocks(ROOT / "docs" / "how-to" / "embed.md", language):
            if match := re.match(r"# (\S+\.(?:py|toml))\n", block):
                written[match[1]] = block
    assert set(written) == {"activity_data.py", "activity.py", "run.toml", "app.py"}
    for name, content in written.items():
        (tmp_path / name).write_text(content)
    environment = {"PYTHONPATH": str(tmp_path)}
    server = Process(BIN / "ftte", "serve", tmp_path / "run.toml", log=tmp_path / "serve.log", environment=environment)
    try:
        joined = server.wait_for(r"(ws://[\d.:]+)[\s\\]+--run activity[\s\\]+--key[\s\\]+([0-9a-f]{64})")
        environment = without_torch(tmp_path) | {"FTTE_URL": joined[1], "FTTE_KEY": joined[2]}

        def app(device: str, *options: str) -> Process:
            log = tmp_path / f"{device}{len(options)}.log"
            folder = str(tmp_path / device)
            return Process(sys.executable, tmp_path / "app.py", folder, *options, log=log, environment=environment)

        apps = [app("watch-1"), app("watch-2")]
        assert [process.wait() for process in apps] == [0, 0]
        assert server.wait() == 0
        for process in apps:
            assert "trained" in process.output
            assert "ended at version 10" in process.output
        assert "part of version" in apps[0].output + apps[1].output
        offline = app("watch-1", "--offline")
        assert offline.wait() == 0
        assert len(re.findall(r"\(it was (\w+)\)", offline.output)) == 3
        assert len(re.findall(r"(\w+) \(it was \1\)", offline.output)) >= 2
    finally:
        server.stop()


def test_the_example_of_personal_parameters(tmp_path: Path) -> None:
    for language in ("python", "toml"):
        for block in blocks(ROOT / "docs" / "how-to" / "personalise.md", language):
            (tmp_path / block.split("\n", 1)[0].removeprefix("# ")).write_text(block)
    environment = {"PYTHONPATH": str(tmp_path)}
    server = Process(
        BIN / "ftte", "serve", tmp_path / "personal.toml", log=tmp_path / "serve.log", environment=environment
    )
    try:
        joined = server.wait_for(r"(ws://[\d.:]+)[\s\\]+--run taste[\s\\]+--key[\s\\]+([0-9a-f]{64})")
        environment = without_torch(tmp_path) | {"FTTE_URL": joined[1], "FTTE_KEY": joined[2]}
        # The example keeps its storage where it is started.
        script = f"import os, runpy, sys; os.chdir({str(tmp_path)!r}); runpy.run_path('person.py', run_name='__main__')"
        people = [
            Process(sys.executable, "-c", script, str(i), log=tmp_path / f"person-{i}.log", environment=environment)
            for i in range(2)
        ]
        assert [process.wait() for process in people] == [0, 0]
        assert server.wait() == 0
        for process in people:
            found = re.search(r"^accuracy ([\d.]+)$", process.output, re.MULTILINE)
            assert found is not None
            assert float(found[1]) > 0.85, "though the two disagree on every sample"
            assert "with the own head" in process.output
    finally:
        server.stop()


@pytest.mark.parametrize(("document", "variables"), [("README.md", {}), ("docs/how-to/embed.md", {})])
def test_the_lines_that_join_a_run(document: str, variables: dict[str, Any], site: Site) -> None:
    server = site.serve("[merge]\nbuffer = 1\n[stop]\nversions = 2\n")
    (snippet, *_) = (block for block in blocks(ROOT / document, "python") if "async def take_part" in block)
    namespace: dict[str, Any] = {"URL": site.url, "KEY": site.key, **variables}
    # Only where it listens and keeps its files differs here.
    snippet = snippet.replace("ws://127.0.0.1:8765", site.url).replace("phone-0", str(site.folder / "phone-0"))
    exec(snippet, namespace)
    x, y = part(0, of=4)
    result = asyncio.run(namespace["take_part"](x, y))
    assert result is None or np.asarray(result).shape == (5, 10)
    assert server.wait() == 0
