"""
The SDK on phones' kinds of processors, on another Linux machine: Debian's programs for them, run by qemu.

    python -m scripts.arm 32 suite [CASE ...]    the conformance suite, interpreted engine
    python -m scripts.arm 64 suite [CASE ...]    the conformance suite, native engine, too
    python -m scripts.arm 32 trainer             the demo's whole trainer, until a coordinator here merged two updates
    python -m scripts.arm 64 trainer
    python -m scripts.arm 32 blas                a training step with OpenBLAS and without
    python -m scripts.arm 64 merge               whether merges there have the hashes that they have here

Python 3.14 and numpy are Debian's; the SDK is the wheel of ``scripts/wheels.py``, and nothing of this checkout but what
is run. Nothing is installed, and no rights are needed. What was fetched is kept in build. Cases default to some of the
zoo. Python runs with -OO, as python-for-android builds it; pytest needs assertions, so the suite runs without.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from . import wheels
from .debian import qemu, unpack

__all__ = ["Machine", "site"]

ROOT = Path(__file__).resolve().parents[1]
WORK = ROOT / "build" / "arm"
# Debian's testing release, the first with Python 3.14.
SUITE = "forky"
PACKAGES = ("python3", "python3-numpy", "python3-scipy", "libopenblas0-pthread")
CASES = ("mlp", "digits-half", "text", "cifar")
PATIENCE = 600.0


class Machine(NamedTuple):
    """A kind of processor: what qemu, Debian and :mod:`scripts.wheels` call it, and the engine of its phones."""

    qemu: str
    debian: str
    triplet: str
    wheel: str
    engine: str

    def python(self, *words: str | Path, **environment: str) -> list[str]:
        """The command that runs Python on it with ``words``; other variables than these are not passed on."""
        root = unpack(self.debian, SUITE, PACKAGES)
        blas = root / "usr/lib" / self.triplet / "openblas-pthread"
        known = {"LD_LIBRARY_PATH": str(blas), "OPENBLAS_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        variables = [word for name, value in (known | environment).items() for word in ("-E", f"{name}={value}")]
        python = root / "usr/bin/python3.14"
        return [*map(str, [qemu(self.qemu), "-L", root]), *variables, *map(str, [python, *words])]


MACHINES = {
    "32": Machine("arm", "armhf", "arm-linux-gnueabihf", "pure", "interpreted"),
    "64": Machine("aarch64", "arm64", "aarch64-linux-gnu", "aarch64", "native"),
}


def site(machine: Machine) -> Path:
    """A folder with the SDK's wheel, as it was built now, and what the suite and the SDK need besides numpy."""
    folder = WORK / machine.debian / "site"
    shutil.rmtree(folder, ignore_errors=True)
    wheel = wheels.build(machine.wheel, WORK / machine.debian)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    pure = [
        "--target",
        str(folder),
        "--only-binary=:all:",
        "--python-version=3.14",
        "--implementation=py",
        "--abi=none",
    ]
    subprocess.run(
        [*pip, "install", "--no-warn-conflicts", *pure, "--platform=any", "websockets>=15", "pytest>=8"], check=True
    )
    subprocess.run([sys.executable, "-m", "zipfile", "-e", str(wheel), str(folder)], check=True)
    return folder


def suite(machine: Machine, cases: Sequence[str]) -> int:
    """Run the conformance suite; pytest's exit code."""
    folder = WORK / machine.debian
    for name in ("cases", "suite"):
        shutil.rmtree(folder / name, ignore_errors=True)
    subprocess.run(
        [sys.executable, "-m", "tests.conformance.cases", str(folder / "cases"), *cases], cwd=ROOT, check=True
    )
    packages = site(machine)
    # Nothing of this checkout but the suite: the SDK is the wheel's.
    shutil.copytree(ROOT / "tests" / "conformance", folder / "suite" / "tests" / "conformance")
    (folder / "suite" / "tests" / "__init__.py").touch()
    command = machine.python(
        *("-m", "pytest", "-q", "-p", "no:cacheprovider", "-rs", "tests/conformance/test_engines.py"),
        *([] if machine.engine == "native" else ["-k", "interpreted"]),
        FTTE_CASES=str(folder / "cases"),
        PYTHONPATH=str(packages),
    )
    return subprocess.run(command, cwd=folder / "suite", check=False).returncode


def trainer(machine: Machine) -> int:
    """Let the demo's trainer join a coordinator on this machine; 0 when two of its updates are merged."""
    sys.path.insert(0, str(ROOT / "android_demo"))
    from ftte_demo.line import Line
    from ftte_demo.trainer.joined import Joined, save

    from mobile_sdk.invite import Invite

    folder = WORK / machine.debian / "trainer"
    shutil.rmtree(folder, ignore_errors=True)
    phone = folder / "phone"
    phone.mkdir(parents=True)
    packages = site(machine)
    with _coordinator(folder) as link:
        save(phone / "joined.json", Joined(Invite.parse(link)))
        command = machine.python(
            *("-OO", "-m", "ftte_demo.trainer", phone),
            PYTHONPATH=f"{packages}:{ROOT / 'android_demo'}",
            FTTE_DEMO_ENGINE=machine.engine,
        )
        begun = time.monotonic()
        process = subprocess.Popen(command, cwd=folder)
        line = Line(phone)
        try:
            status = _merged(line, process, 2)
        finally:
            line.close()
            process.terminate()
            process.wait()
    print(
        f"{machine.qemu}: {status['merged']} updates merged by engine {status['engine']} after "
        f"{time.monotonic() - begun:.0f} s; loss {status['losses'][0]:.3f} -> {status['losses'][-1]:.3f}; "
        f"{status['process_memory'] / 1e6:.0f} MB resident, qemu's included; exit code {process.returncode}"
    )
    return process.returncode


def _merged(line: Any, process: subprocess.Popen[bytes], updates: int) -> dict[str, Any]:
    """The trainer's status when so many of its updates are merged."""
    deadline = time.monotonic() + PATIENCE
    while True:
        for message in line.received():
            status = message.get("status", {})
            if status.get("phase") == "failed":
                raise SystemExit(f"the trainer failed: {status['reason']}")
            if status.get("merged", 0) >= updates:
                return dict(status)
        if process.poll() is not None:
            raise SystemExit(f"the trainer ended with {process.returncode}: see trainer.log in its folder")
        if time.monotonic() > deadline:
            raise SystemExit(f"no {updates} updates were merged within {PATIENCE:.0f} s")
        time.sleep(0.1)


@contextlib.contextmanager
def _coordinator(folder: Path) -> Iterator[str]:
    """``ftte serve`` of the digits on a free port of this machine; gives its invitation."""
    from mobile_sdk.invite import Invite

    (folder / "run.toml").write_text(
        '[run]\nname = "digits"\ntask = "exporters.zoo.digits:task"\n[server]\nport = 0\n[budgets]\nsmall = "1MB"\n'
        "[merge]\nbuffer = 1\n[stop]\nversions = 100000\n"
    )
    ftte = Path(sys.executable).with_name("ftte")
    process = subprocess.Popen([ftte, "serve", "run.toml"], cwd=folder, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        for text in process.stdout:
            found = re.search(r"join (\S+) --run (\S+) --key ([0-9a-f]{64})", text)
            if found is not None:
                yield str(Invite(*found.groups()))
                return
        raise SystemExit("the coordinator did not start")
    finally:
        process.terminate()
        process.communicate()


def blas(machine: Machine) -> int:
    """Time a training step with OpenBLAS, and with loops like those of a numpy that has no BLAS."""
    folder = WORK / machine.debian
    shutil.rmtree(folder / "cases", ignore_errors=True)
    names = ("mlp", "digits-half", "text")
    subprocess.run(
        [sys.executable, "-m", "tests.conformance.cases", str(folder / "cases"), *names], cwd=ROOT, check=True
    )
    packages = site(machine)
    loops = folder / "loops"
    loops.mkdir(exist_ok=True)
    zig = [sys.executable, "-m", "ziglang", "cc", "-target", "arm-linux-gnueabihf", "-mcpu=cortex_a7", "-O3", "-shared"]
    library = loops / "libblas.so.3"
    subprocess.run([*zig, "-fPIC", str(ROOT / "scripts" / "loops.c"), "-o", str(library)], check=True)
    lapack = unpack(machine.debian, SUITE, PACKAGES) / "usr/lib" / machine.triplet / "openblas-pthread"
    results = {}
    for name, path in (("OpenBLAS", str(lapack)), ("loops", f"{loops}:{lapack}")):
        command = machine.python(
            ROOT / "scripts" / "step_seconds.py", folder / "cases", PYTHONPATH=str(packages), LD_LIBRARY_PATH=path
        )
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ)
        results[name] = json.loads(done.stdout)
    for case in results["OpenBLAS"]:
        fast, slow = results["OpenBLAS"][case], results["loops"][case]
        print(f"{case}: {fast * 1e3:.1f} ms with OpenBLAS, {slow * 1e3:.1f} ms without ({slow / fast:.1f}x)")
    return 0


def merge(machine: Machine) -> int:
    """Compare the hashes of merged versions there and here; 1 if one differs."""
    program = ROOT / "tests" / "coordinator" / "merge" / "digests.py"
    packages = site(machine)
    here = subprocess.run([sys.executable, str(program)], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    command = machine.python(program, PYTHONPATH=f"{ROOT}:{packages}")
    there = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    print(f"{len(json.loads(here))} hashes are {'the same' if there == here else 'not the same'}")
    return int(there != here)


def main() -> int:
    """The command line; its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.arm", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bits", choices=MACHINES)
    parser.add_argument("what", choices=("suite", "trainer", "blas", "merge"))
    parser.add_argument("cases", nargs="*", metavar="CASE")
    options = parser.parse_args()
    machine = MACHINES[options.bits]
    if options.what == "suite":
        return suite(machine, options.cases or CASES)
    return {"trainer": trainer, "blas": blas, "merge": merge}[options.what](machine)


if __name__ == "__main__":
    sys.exit(main())
