"""A fuzz target, and what one execution of it must keep to."""

from __future__ import annotations

import contextlib
import dataclasses
import resource
import time
import tracemalloc
import warnings
from collections.abc import Callable
from pathlib import Path

__all__ = ["CORPUS", "HANG_SECONDS", "Hang", "MemoryBound", "Target", "execute", "refuse_warnings", "replay"]

# One folder per target: small seeds, and every input that has found something.
CORPUS = Path(__file__).parent / "corpus"

# Processor time, so that a busy machine makes no hang.
HANG_SECONDS = 1.0


class Hang(AssertionError):
    """An execution took more than :data:`HANG_SECONDS` of processor time."""


class MemoryBound(AssertionError):
    """An execution took more memory than its target allows."""


@dataclasses.dataclass(frozen=True)
class Target:
    """
    Something that parses what a peer sent.

    Args:
        name: on the command line, and of its folder of inputs.
        parse: takes the input; whatever it raises beyond ``documented`` is a crash.
        documented: the exceptions that its documentation names.
        megabytes: the most memory that one execution may take, in units of 1,000,000 bytes.
        length: the longest input that the fuzzer makes, in bytes.
        words: what inputs are likely to hold; the fuzzer puts them in.
        seeds: name -> a small valid input, or one of a kind that the fuzzer is unlikely to find alone.
        prepare: called once before the first execution, whose time and memory it is not to be part of.

    """

    name: str
    parse: Callable[[bytes], None]
    documented: tuple[type[Exception], ...]
    megabytes: int
    length: int
    words: tuple[bytes, ...]
    seeds: Callable[[], dict[str, bytes]]
    prepare: Callable[[], object] = lambda: None

    @property
    def corpus(self) -> Path:
        """The folder of its inputs."""
        return CORPUS / self.name


def execute(target: Target, data: bytes) -> None:
    """
    One execution under the fuzzer, which has made warnings errors (:func:`refuse_warnings`) once for all executions.

    Memory is the growth of the process's peak: it misses what stays below an earlier peak, and costs no time.

    Raises:
        Hang: if it took too long.
        MemoryBound: if it took too much memory.

    """
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    _parse(target, data)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak
    if grown > target.megabytes * 1000:
        raise MemoryBound(f"the peak grew by {grown / 1000:.0f} MB; {target.name} may take {target.megabytes} MB")


def replay(target: Target, data: bytes) -> None:
    """
    One execution in a test: memory is what Python and numpy allocate at the most, exactly.

    Raises:
        Hang: if it took too long.
        MemoryBound: if it took too much memory.

    """
    tracemalloc.start()
    try:
        with warnings.catch_warnings():
            refuse_warnings()
            _parse(target, data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    if peak > target.megabytes * 1_000_000:
        raise MemoryBound(f"{peak / 1e6:.1f} MB were allocated; {target.name} may take {target.megabytes} MB")


def refuse_warnings() -> None:
    """A warning is a line in an operator's log that a stranger can write: it is an error from now on."""
    warnings.simplefilter("error")


def _parse(target: Target, data: bytes) -> None:
    started = time.process_time()
    with contextlib.suppress(*target.documented):
        target.parse(data)
    seconds = time.process_time() - started
    if seconds > HANG_SECONDS:
        raise Hang(f"{seconds:.1f} s of processor time; the limit is {HANG_SECONDS:g} s")
