"""
The pinned torch comes without CUDA where an index or a folder has such a build, and from PyPI where none has.

Tiny wheels stand for the builds, on indexes that this machine serves; pip is the real one.
"""

from __future__ import annotations

import functools
import http.server
import os
import shutil
import socket
import subprocess
import sys
import threading
import venv
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RUN = "import sys; sys.path.insert(0, sys.argv[1]); import install_torch; print(install_torch.install(*sys.argv[2:]))"
Install = Callable[..., subprocess.CompletedProcess[str]]


def wheel(folder: Path, name: str, version: str, *requires: str, size: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    info = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    metadata += "".join(f"Requires-Dist: {each}\n" for each in requires)
    files = {
        f"{name}/__init__.py": "#" * size,
        f"{info}/METADATA": metadata,
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{each},,\n" for each in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w", zipfile.ZIP_DEFLATED) as archive:
        for path, content in files.items():
            archive.writestr(path, content)


@pytest.fixture(scope="module")
def indexes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Address and folder of a server: ``pypi`` and ``cpu`` are indexes with a folder for each package."""
    folder = tmp_path_factory.mktemp("indexes")
    wheel(folder / "pypi/torch", "torch", "2.13.0", "nvidia_fake", size=30_000_000)
    wheel(folder / "pypi/torch", "torch", "2.14.0")
    wheel(folder / "pypi/nvidia-fake", "nvidia_fake", "1.0", size=2_000_000_000 // 20)
    wheel(folder / "cpu/torch", "torch", "2.13.0+cpu", size=20_000_000)
    wheel(folder / "cpu/torch", "torch", "2.14.0+cpu")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", folder
        server.shutdown()


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("venv")
    venv.create(folder, with_pip=True)
    return folder


@pytest.fixture
def install(environment: Path, indexes: tuple[str, Path], tmp_path: Path) -> Install:
    """The script in an environment without torch, where pip's own source is the index ``pypi``."""
    for pattern in ("torch*", "nvidia_fake*"):
        for path in environment.glob(f"lib/python*/site-packages/{pattern}"):
            shutil.rmtree(path)
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "PYTHON", "FTTE_"))}
    clean |= {"PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": f"{indexes[0]}/pypi", "PIP_NO_CACHE_DIR": "1"}
    clean |= {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}

    def install(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        command = [str(environment / "bin/python"), "-c", RUN, str(ROOT / "scripts"), *arguments]
        return subprocess.run(command, cwd=tmp_path, env=clean | more, capture_output=True, text=True, check=False)

    return install


def closed_port() -> str:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{holder.getsockname()[1]}/cpu"


WITHOUT = "make: torch 2.13.0+cpu (without CUDA), 0.02 GB; for PyPI's build run `make clean setup FTTE_TORCH=pypi`\n"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere PyPI's build is without CUDA")
def test_the_cpu_build_comes_from_its_index(install: Install, indexes: tuple[str, Path]) -> None:
    done = install("", f"{indexes[0]}/cpu")
    assert (done.returncode, done.stdout) == (0, WITHOUT), done.stderr
    assert "make: downloading torch" in done.stderr
    assert "Downloading" in done.stderr, "it shows how far it is"


def test_pypis_build_comes_where_that_index_cannot_be_reached(install: Install) -> None:
    done = install("", closed_port())
    assert done.returncode == 0, done.stderr
    assert done.stdout == (
        "make: torch 2.13.0 (PyPI's, with 1 packages of CUDA), 0.13 GB; for the build without CUDA run "
        "`make clean setup FTTE_TORCH=https://download.pytorch.org/whl/cpu`, or name a folder with its wheel\n"
    )


def test_pypis_build_comes_when_it_is_asked_for(install: Install, indexes: tuple[str, Path]) -> None:
    done = install("pypi", f"{indexes[0]}/cpu")
    assert done.stdout.startswith("make: torch 2.13.0 (PyPI's, with 1 packages of CUDA)"), done.stderr


def test_a_folder_of_wheels_will_do(install: Install, indexes: tuple[str, Path]) -> None:
    done = install(str(indexes[1] / "cpu" / "torch"), closed_port())
    assert (done.returncode, done.stdout) == (0, WITHOUT), done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere PyPI's build is without CUDA")
def test_a_folder_that_pip_is_told_of_will_do(install: Install, indexes: tuple[str, Path]) -> None:
    done = install("", closed_port(), PIP_FIND_LINKS=str(indexes[1] / "cpu" / "torch"))
    assert (done.returncode, done.stdout) == (0, WITHOUT), done.stderr


def test_a_source_that_was_chosen_and_has_none_is_an_error(install: Install, tmp_path: Path) -> None:
    done = install(str(tmp_path))
    assert done.returncode == 1
    assert done.stderr == f"make: FTTE_TORCH={tmp_path} has no torch 2.13.0+cpu for this Python: correct or unset it\n"


def test_what_is_installed_stays(install: Install, indexes: tuple[str, Path]) -> None:
    install(str(indexes[1] / "cpu" / "torch"))
    again = install("", closed_port(), PIP_INDEX_URL=closed_port())
    assert (again.returncode, again.stdout) == (0, WITHOUT), again.stderr
