"""
Cases are made here, or taken from the folder that ``FTTE_CASES`` names; engines are those that the machine has.

Those over ExecuTorch run as the wheel is built, and as the archives for Android and Apple are.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from . import builds

_BUILDS = {"wheel": builds.WHEEL, "archive": builds.ARCHIVE_MAPPED, "archive-files": builds.ARCHIVE_FROM_FILES}
# Engine, and the build of ExecuTorch under it.
ENGINES = [("interpreted", "")] + [(engine, build) for engine in ("native", "android") for build in _BUILDS]
READY = os.environ.get("FTTE_CASES")

if READY is None:
    # Its compiled part crashes when it is loaded after ExecuTorch's runtime, which pytest's plugin would do.
    import hypothesis  # noqa: F401


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case" in metafunc.fixturenames:
        metafunc.parametrize("case", _cases(), indirect=True, scope="session")
    if "engine_name" in metafunc.fixturenames:
        ids = [f"{engine}-{build}".rstrip("-") for engine, build in ENGINES]
        metafunc.parametrize("engine_name", ENGINES, indirect=True, ids=ids)


def _cases() -> Sequence[object]:
    if READY is not None:
        return sorted(path.name for path in Path(READY).iterdir() if path.is_dir())
    from .cases import CASES, QUICK

    return [pytest.param(name, marks=[] if name in QUICK else [pytest.mark.full]) for name in CASES]


@pytest.fixture(scope="session")
def case(request: pytest.FixtureRequest, make_case: Callable[[str], Path]) -> Path:
    """A program's folder with the numbers that it must give."""
    return make_case(request.param)


@pytest.fixture(scope="session")
def make_case(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Cases by name, each made once."""
    made: dict[str, Path] = {}

    def make(name: str) -> Path:
        if READY is not None:
            return Path(READY) / name
        if name not in made:
            from .cases import write

            made[name] = write(name, tmp_path_factory.mktemp("case") / name)
        return made[name]

    return make


@pytest.fixture
def engine_name(request: pytest.FixtureRequest) -> Iterator[str]:
    """An engine over a build of ExecuTorch; what this machine lacks for it is said when it is skipped."""
    engine, build = request.param
    if engine == "android":
        start_java()
    if not build:
        yield engine
        return
    if builds.missing() and build != "wheel":
        pytest.skip(builds.missing())
    if builds.missing():
        yield engine
        return
    with builds.running(_BUILDS[build]):
        yield engine


def start_java() -> None:
    """Start the desktop Java machine with the Android bridge, or skip the test."""
    try:
        from tests.android import jvm
    except ImportError:
        pytest.skip(f"the Android bridge is tested where cases are made, not on this {platform.machine()} machine")
    if jvm.missing():
        pytest.skip(jvm.missing())
    jvm.start()
