"""
Central evaluation in a process of its own.

A large model keeps a processor busy for seconds. In a thread, that would hold Python's lock again and again and
delay every device; in a process of low priority it delays nobody.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
from multiprocessing.process import BaseProcess
from typing import Any, Protocol

import numpy as np

from mobile_sdk.layout import Vector
from mobile_sdk.system.processor import lower_priority
from mobile_sdk.system.signals import ENDING
from mobile_sdk.system.spawning import SPAWN

__all__ = ["EvaluationProcess", "SpareProcess"]

log = logging.getLogger(__name__)

CLOSE_SECONDS = 5.0


class _Pipe(Protocol):
    """An end of a pipe: of one class on Windows, of another elsewhere."""

    def send(self, obj: Any) -> None: ...
    def send_bytes(self, buf: Any) -> None: ...
    def recv(self) -> Any: ...
    def recv_bytes(self) -> bytes: ...
    def close(self) -> None: ...


class SpareProcess:
    """A process that loads what evaluation needs before anybody knows what it will evaluate, for a quick takeover."""

    def __init__(self) -> None:
        self._spawned: tuple[BaseProcess, _Pipe] | None = _spawn()

    def take(self) -> tuple[BaseProcess, _Pipe] | None:
        """The process and its pipe; once."""
        spawned, self._spawned = self._spawned, None
        return spawned

    def close(self) -> None:
        """End the process if nobody has taken it."""
        if (spawned := self.take()) is not None:
            process, pipe = spawned
            process.kill()  # it has done nothing yet, and may not listen before it has loaded
            process.join()
            pipe.close()


class EvaluationProcess:
    """
    Evaluates weight vectors; call it from a worker thread.

    Args:
        manifest: of a program of the run.
        program: its ``.pte``.
        samples: safetensors file with ``x`` and ``y``.
        spare: a process that has loaded already.

    """

    def __init__(self, manifest: bytes, program: bytes, samples: bytes, spare: SpareProcess | None = None) -> None:
        self._spare = spare
        self._arguments = (manifest, program, samples)
        self._lock = threading.Lock()
        self._running: tuple[BaseProcess, _Pipe] | None = None
        self._closed = False

    def __call__(self, vector: Vector) -> dict[str, float]:
        """
        Mean loss and metrics of a weight vector; nothing if evaluation fails or is closed, which a run survives.

        Args:
            vector: float32, shape ``(layout.size,)``.

        """
        with self._lock:
            if self._closed:  # meanwhile: a process that is started now would be nobody's
                return {}
            for _ in range(2):  # whoever ran out of memory once may not the second time
                try:
                    return self._ask(vector)
                except (EOFError, OSError) as error:
                    log.error("the evaluation process has died: %r", error)
                    self._end()
        log.error("this version has no metrics: evaluation failed twice")
        return {}

    def start(self) -> None:
        """Let the process load meanwhile, so that the first call waits less. Returns at once."""
        threading.Thread(target=self._prepare, name="ftte-evaluation", daemon=True).start()

    def _prepare(self) -> None:
        with self._lock:
            if self._running is None and not self._closed:
                try:
                    self._running = self._start()
                except OSError as error:
                    log.error("the evaluation process ended as it began: %r", error)

    def close(self) -> None:
        """End the process."""
        with self._lock:
            self._closed = True
            self._end()
            if self._spare is not None:
                self._spare.close()

    def _ask(self, vector: Vector) -> dict[str, float]:
        if self._running is None:
            self._running = self._start()
        _, pipe = self._running
        pipe.send_bytes(np.ascontiguousarray(vector).data)
        answer: dict[str, float] | str = pipe.recv()
        if isinstance(answer, str):
            log.error("evaluation failed: %s", answer)
            return {}
        return answer

    def _start(self) -> tuple[BaseProcess, _Pipe]:
        process, ours = (self._spare and self._spare.take()) or _spawn()
        # Not as arguments: those go through a pipe whose reading end is open here, too. If Ctrl-C ends the process
        # before it has read them, whoever writes more than a pipe holds would wait for ever.
        try:
            for part in self._arguments:
                ours.send_bytes(part)
        except OSError:
            ours.close()
            process.join()
            raise
        return process, ours

    def _end(self) -> None:
        if self._running is None:
            return
        running, self._running = self._running, None
        _end(*running)


def _spawn() -> tuple[BaseProcess, _Pipe]:
    ours, theirs = SPAWN.Pipe()
    process = SPAWN.Process(target=_serve, args=(theirs,), name="ftte-evaluation", daemon=True)
    process.start()
    theirs.close()
    return process, ours


def _end(process: BaseProcess, pipe: _Pipe) -> None:
    pipe.close()  # it ends when nobody can ask any more
    process.join(CLOSE_SECONDS)
    if process.is_alive():
        process.kill()
        process.join()


def _serve(pipe: _Pipe) -> None:
    """In the process: take manifest, program and samples, then answer until the pipe closes."""
    for signum in ENDING:
        signal.signal(signum, signal.SIG_IGN)  # the coordinator decides when it ends
    lower_priority(5)
    # The coordinator has closed its end, or was killed while it waited for an answer.
    with contextlib.suppress(EOFError, ConnectionError):
        from .central import Evaluator, engine_of

        manifest, program, samples = (_receive(pipe) for _ in range(3))
        evaluator: Any = Evaluator(engine_of(manifest, program), samples)
        while True:
            vector = np.frombuffer(_receive(pipe), np.float32)
            try:
                answer: dict[str, float] | str = evaluator(vector)
            except Exception as error:
                answer = f"{type(error).__name__}: {error}"
            pipe.send(answer)


def _receive(pipe: _Pipe) -> bytes:
    """What the coordinator sends next; :exc:`EOFError` if it is gone, also where it was killed in the middle."""
    try:
        return pipe.recv_bytes()
    except OSError as error:
        raise EOFError from error
