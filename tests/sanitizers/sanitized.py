"""Build the harness, run it over damaged programs, and read what the sanitizers said."""

from __future__ import annotations

import collections
import dataclasses
import os
import re
import subprocess
from collections.abc import Iterable
from pathlib import Path

from mobile_sdk.native.build import SOURCES, harness_flags

from .damage import damage

__all__ = ["Ends", "Fault", "build", "run"]

HERE = Path(__file__).parent

# A damaged size may ask for any amount of memory: that is refused as it is on a device.
ENVIRONMENT = {
    "ASAN_OPTIONS": "exitcode=99:allocator_may_return_null=1:max_allocation_size_mb=1024:detect_leaks=0:"
    "handle_abort=0:abort_on_error=0:handle_sigill=1",
    "UBSAN_OPTIONS": "exitcode=99:halt_on_error=1:print_stacktrace=1",
}
_OURS = tuple(str(path) for folder in (SOURCES[0].parent, HERE) for path in folder.glob("*.*"))
_FRAME = re.compile(r"^ *#\d+ 0x[0-9a-f]+ (?:in (?P<function>.+?) )?(?P<where>[^ ]+)$", re.MULTILINE)
_UNDEFINED = re.compile(r"^(?P<where>\S+?):\d+:\d+: runtime error: (?P<what>.*)$", re.MULTILINE)


@dataclasses.dataclass(frozen=True)
class Fault:
    """A damaged program that a sanitizer or the system ended: where, and whether that place is in our sources."""

    number: int
    content: bytes
    place: str
    ours: bool
    said: str


@dataclasses.dataclass
class Ends:
    """How programs ended, and what they were."""

    ends: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    faults: list[Fault] = dataclasses.field(default_factory=list)

    def count(self, end: str) -> int:
        """How many ended like that."""
        return sum(found == end for _, found in self.ends)

    def by_kind(self) -> dict[str, collections.Counter[str]]:
        """Kind of damage -> end -> how many."""
        found: dict[str, collections.Counter[str]] = {}
        for kind, end in self.ends:
            found.setdefault(kind, collections.Counter())[end] += 1
        return found


def build(folder: Path) -> Path:
    """
    The harness with the runtime's sources, compiled with both sanitizers into ``folder``.

    Raises:
        subprocess.CalledProcessError: if the compiler has no sanitizers.

    """
    harness = folder / "harness"
    # No vptr: ExecuTorch's libraries have no type information.
    command = [
        os.environ.get("CXX", "c++"), "-std=c++17", "-O1", "-g", "-fno-omit-frame-pointer", "-Wall",
        "-fsanitize=address,undefined", "-fno-sanitize=vptr", "-fno-sanitize-recover=all",
        *map(str, SOURCES), str(HERE / "harness.cpp"), "-o", str(harness), *harness_flags(),
    ]  # fmt: skip
    subprocess.run(command, check=True)
    return harness


def run(harness: Path, content: bytes, numbers: Iterable[int], folder: Path) -> Ends:
    """
    Damage a sound program in each of ``numbers`` ways, and run what comes of it.

    Args:
        harness: what :func:`build` gave.
        content: the sound program; it is run first.
        numbers: of :func:`~tests.sanitizers.damage.damage`.
        folder: for the programs; they are removed again.

    Raises:
        AssertionError: if the sound program does not run.

    """
    found = Ends()
    sound = folder / "sound.pte"
    sound.write_bytes(content)
    (end,) = _ends(harness, [sound])
    assert end == "ran", f"the sound program: {end}\n{_said(sound)}"
    numbers = list(numbers)
    for start in range(0, len(numbers), 50):
        batch = {number: damage(content, number) for number in numbers[start : start + 50]}
        paths = {number: folder / f"{number}.pte" for number in batch}
        for number, path in paths.items():
            path.write_bytes(batch[number][0])
        for (number, (damaged, kind)), end in zip(batch.items(), _ends(harness, list(paths.values())), strict=True):
            found.ends.append((kind, end))
            if end not in ("ran", "refused"):
                found.faults.append(_fault(number, damaged, end, _said(paths[number])))
            paths[number].unlink()
            paths[number].with_name(f"{number}.pte.log").unlink(missing_ok=True)
    return found


def _ends(harness: Path, paths: list[Path]) -> list[str]:
    done = subprocess.run([harness, *paths], env=os.environ | ENVIRONMENT, capture_output=True, text=True, check=True)
    return [line.split(" ", 1)[0] for line in done.stdout.splitlines()]


def _said(path: Path) -> str:
    return path.with_name(path.name + ".log").read_text(errors="replace")


def _fault(number: int, content: bytes, end: str, said: str) -> Fault:
    undefined = _UNDEFINED.search(said)
    if undefined is not None:
        place, where = f"{undefined['what'][:60]} at {_short(undefined['where'])}", undefined["where"]
    else:
        # The first frame that is no function of the C library: whoever gave it a wrong address.
        frames = [
            f for f in _FRAME.finditer(said) if re.search(r"libasan|sanitizer|libc\.so|memmove|memcpy", f[0]) is None
        ]
        where = frames[0]["where"] if frames else ""
        function = (frames[0]["function"] or "") if frames else ""
        kind = re.search(r"AddressSanitizer: ([\w-]+)", said)
        place = f"{kind[1] if kind else end} in {function[:70]} {_short(where)}"
    return Fault(number, content, place, end == "SIGNAL-6" or where.startswith(_OURS), said)


def _short(where: str) -> str:
    """A place without folders and addresses."""
    return re.sub(r"\+0x[0-9a-f]+.*", "", where.rsplit("/", maxsplit=1)[-1]).rstrip(")").removeprefix("(")
