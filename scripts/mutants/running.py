"""
Running the tests of a room, in a copy of the repository, in forked processes.

What each test reaches takes most of the time. With a folder to keep it in, only files of tests that are new or changed
are measured again, and all of them once the room's code has changed.
"""

from __future__ import annotations

import compileall
import contextlib
import hashlib
import importlib
import json
import os
import py_compile
import resource
import shutil
import signal
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from scripts.mutants.changes import ROOT
from scripts.mutants.reach import Reach

# Each room, and those of its tests that start many processes or take minutes: they are not run here.
ROOMS: dict[str, tuple[str, ...]] = {
    "coordinator/merge": ("test_processors.py::test_every_path_of_the_processor_gives_the_same_versions",),
    "coordinator/updates": (),
    "coordinator/scheduling": (),
    "coordinator/sessions": (),
    "coordinator/store": ("test_kills.py", "test_backup.py::test_a_backup_under_load_is_whole"),
    "mobile_sdk/protocol": (),
    "mobile_sdk/payload": (),
}
COPIED = ("coordinator", "exporters", "mobile_sdk", "tests", "examples", "scenarios", "docs", "pyproject.toml")
MOST_BYTES = 6 * 2**30  # of a process, whose loop may have no end
# What takes long to import and keeps nothing of a process: an event loop's modules do not work as well after a fork.
_PRELOADED = ("cryptography", "hypothesis", "numpy", "pydantic", "pydantic_core", "scipy")


def crowding() -> float:
    """
    How many processes want each processor, at least 1: so many times longer everything takes here.

    Without it, a test that is still about to start on a busy machine would count as one that noticed a change.
    """
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def copy_tree(target: Path) -> None:
    """What the tests need, with bytecode that is checked by the source's hash, not by its time."""
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=shutil.ignore_patterns("__pycache__", "build", "*.egg-info"))
        elif source.exists():
            shutil.copy(source, target / name)
    for name in ("coordinator", "exporters", "mobile_sdk", "tests"):
        mode = py_compile.PycInvalidationMode.CHECKED_HASH
        compileall.compile_dir(target / name, quiet=2, invalidation_mode=mode)


class Watch:
    """A pytest plugin: settings of hypothesis that fit, what each test reaches, and which one failed."""

    def __init__(self, coverage: Any = None) -> None:
        self._coverage = coverage
        self.seconds: dict[str, float] = {}
        self.cpu_seconds: dict[str, float] = {}
        self.failed = ""

    def pytest_sessionstart(self) -> None:
        # After the profile of tests/conftest.py, before any test is imported. A busy machine is no change that was
        # noticed, a second run finds what the first did, and nobody reads the smallest example.
        from hypothesis import HealthCheck, Phase, settings

        settings.register_profile(
            "mutants",
            deadline=None,
            suppress_health_check=list(HealthCheck),
            derandomize=True,
            database=None,
            phases=(Phase.explicit, Phase.generate),
        )
        settings.load_profile("mutants")

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        if self._coverage is not None:
            self._coverage.switch_context(item.nodeid)
        before = time.process_time()
        yield
        self.cpu_seconds[item.nodeid] = time.process_time() - before

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0.0) + report.duration
        if report.failed:
            self.failed = self.failed or report.nodeid

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.failed = self.failed or report.nodeid


class Runner:
    """Runs the tests of one room in forked processes."""

    def __init__(self, folder: Path, room: str, keep: Path | None = None) -> None:
        self._folder = folder
        self._room = room
        self._keep = keep
        self._said = folder / "said.json"
        self._log = folder / "log.txt"

    def reach(self) -> Reach:
        """What each test reaches without any change, from what is kept or by running it."""
        keys = self._keys()
        kept = {file: found for file, key in keys.items() if (found := self._kept(key)) is not None}
        missing = [file for file in keys if file not in kept]
        if missing:
            outcome, _, _ = self._fork(lambda: self._measure(missing), wall=1800.0 * crowding())
            if outcome != "passed":
                sys.exit(f"the tests of {self._room} fail without any change:\n{self._log.read_text()[-3000:]}")
            measured = json.loads(self._said.read_text())["files"]
            for file in missing:
                kept[file] = measured[file]
                if self._keep is not None:
                    self._keep.mkdir(parents=True, exist_ok=True)
                    (self._keep / keys[file]).write_text(json.dumps(measured[file]))
        tests: dict[str, dict[int, list[str]]] = {}
        seconds: dict[str, float] = {}
        for found in kept.values():
            seconds |= found["seconds"]
            for path, lines in found["lines"].items():
                for line, names in lines.items():
                    tests.setdefault(path, {}).setdefault(int(line), []).extend(names)
            for name in found["modules"]:  # once, for all that are forked from here
                if name.partition(".")[0] in _PRELOADED and name not in sys.modules:
                    with contextlib.suppress(BaseException):
                        importlib.import_module(name)
        # Imports come on top of what tests take.
        return Reach(tests, seconds, 5.0 + sum(found["cpu_seconds"] for found in kept.values()))

    def _keys(self) -> dict[str, str]:
        """Each file of tests, and a hash of it, of the other files beside it and of the room's code."""
        here = self._folder / "tests" / self._room
        files = sorted(here.rglob("*.py"))
        common = [*sorted((self._folder / self._room).rglob("*.py")), *(f for f in files if f.name[:5] != "test_")]
        base = hashlib.sha256(repr(ROOMS[self._room]).encode())
        for path in common:
            base.update(path.read_bytes())
        keys = {}
        for path in files:
            if path.name.startswith("test_") and str(path.relative_to(here)) not in ROOMS[self._room]:
                own = base.copy()
                own.update(path.read_bytes())
                keys[str(path.relative_to(self._folder))] = own.hexdigest()
        return keys

    def _kept(self, key: str) -> dict[str, Any] | None:
        path = self._keep / key if self._keep is not None else None
        return json.loads(path.read_text()) if path is not None and path.exists() else None

    def judge(
        self, first: list[str], others: list[str], reach: Reach, unfit: Collection[str] = ()
    ) -> tuple[str, str, float]:
        """
        Run the tests ``first``, then the others: the outcome, the test that failed and the seconds of CPU.

        Args:
            first: those that reach the change.
            others: files or folders of tests.
            reach: of the room.
            unfit: tests that are not run.

        """
        # A change may make a loop endless, or wait for what never comes: the usual times, and a lot more.
        usual = [sum(reach.seconds[test] for test in first), sum(reach.seconds.values())]
        walls = [(20.0 + 10 * seconds) * crowding() for seconds in usual]
        cpus = [min(5.0 + 10 * usual[0], 5.0 + 2 * reach.cpu_seconds), 10.0 + 3 * reach.cpu_seconds]
        limits = list(zip(walls, cpus, strict=True))
        return self._fork(lambda: self._run([first, others], limits, unfit=unfit), wall=sum(walls))

    def passes(self, tests: list[str], reach: Reach) -> bool:
        """Whether these tests alone, in this order, pass as the code is now."""
        wall = (30.0 + 10 * sum(reach.seconds.get(test, 0.0) for test in tests)) * crowding()
        return self._fork(lambda: self._run([tests], [(wall, 10.0 + wall)]), wall=wall)[0] == "passed"

    def _fork(self, work: Callable[[], int], wall: float) -> tuple[str, str, float]:
        self._said.unlink(missing_ok=True)
        child = os.fork()
        if child == 0:
            os.setsid()
            self._child(work)
        deadline = time.monotonic() + wall
        outcome = "timeout"
        while time.monotonic() < deadline:
            done, status, used = os.wait4(child, os.WNOHANG)
            if done:
                code = os.waitstatus_to_exitcode(status)
                outcome = (
                    "passed" if code == 0 else "timeout" if code in (-signal.SIGXCPU, -signal.SIGALRM) else "failed"
                )
                break
            time.sleep(0.02)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child, signal.SIGKILL)  # and what it left behind
        if not done:
            _, _, used = os.wait4(child, 0)
        failed = json.loads(self._said.read_text())["failed"] if self._said.exists() else ""
        return outcome, failed, used.ru_utime + used.ru_stime

    def _child(self, work: Callable[[], int]) -> None:
        code = 1
        try:
            with self._log.open("wb") as file:
                os.dup2(file.fileno(), 1)
                os.dup2(file.fileno(), 2)
            resource.setrlimit(resource.RLIMIT_DATA, (MOST_BYTES, MOST_BYTES))
            os.chdir(self._folder)
            # Started with ``-m``, this module came from the repository that was copied.
            sys.path[:] = [str(self._folder), *(path for path in sys.path if path not in ("", str(ROOT)))]
            sys.dont_write_bytecode = True
            os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
            # Plugins that other packages bring take longer to import than most tests run, and no test here needs one.
            os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
            code = work()
        finally:
            os._exit(code)

    def _run(
        self,
        parts: list[list[str]],
        limits: Sequence[tuple[float, float]],
        watch: Watch | None = None,
        unfit: Collection[str] = (),
    ) -> int:
        """Run each part whose predecessors passed, within ``limits``: seconds for it, and of CPU in all."""
        watch = watch or Watch()
        ran = set(unfit)
        code = 0
        for part, (wall, cpu) in zip(parts, limits, strict=True):
            if code == 0 and part:
                signal.setitimer(signal.ITIMER_REAL, wall)
                resource.setrlimit(resource.RLIMIT_CPU, (int(cpu) + 1, resource.RLIM_INFINITY))
                code = int(pytest.main([*self._options(ran), *part], plugins=[watch]))
                ran |= set(part)
        self._said.write_text(json.dumps({"failed": watch.failed}))
        return code

    def _options(self, ran: set[str]) -> list[str]:
        tests = f"tests/{self._room}"
        left = [*(f"{tests}/{name}" for name in ROOMS[self._room]), *sorted(ran)]
        options = ["-x", "-q", "-p", "no:cacheprovider", "--tb=short"]
        return [*options, "--show-capture=no", "-W", "ignore", *(f"--deselect={name}" for name in left)]

    def _measure(self, files: list[str]) -> int:
        from coverage import Coverage

        coverage = Coverage(data_file=None, config_file=False, include=[f"{self._folder}/{self._room}/*"])
        watch = Watch(coverage)
        coverage.start()
        code = self._run([files], [(1700.0 * crowding(), 900.0)], watch)
        coverage.stop()
        data = coverage.get_data()
        modules = sorted(name for name in sys.modules if name.partition(".")[0] in _PRELOADED)
        said: dict[str, dict[str, Any]] = {
            file: {"seconds": {}, "cpu_seconds": 0.0, "lines": {}, "modules": modules} for file in files
        }
        for test, seconds in watch.seconds.items():
            own = said[test.partition("::")[0]]
            own["seconds"][test] = seconds
            own["cpu_seconds"] += watch.cpu_seconds[test]
        for path in data.measured_files():
            relative = str(Path(path).relative_to(self._folder))
            for line, tests in data.contexts_by_lineno(path).items():
                for test in filter(None, tests):
                    lines = said[test.partition("::")[0]]["lines"].setdefault(relative, {})
                    lines.setdefault(line, []).append(test)
        self._said.write_text(json.dumps({"failed": watch.failed, "files": said}))
        return code
