"""
Processes that work through items in parallel, torch on one thread in each.

Importing this module does not import torch: what ends the processes is wanted before there are any.
"""

from __future__ import annotations

import concurrent.futures
import logging
import os
import pickle
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from mobile_sdk.system.spawning import SPAWN

__all__ = ["Workers", "stop_all"]

Key = TypeVar("Key")
Item = TypeVar("Item")

# What it takes until a process can work, most of which is importing torch and ExecuTorch.
_START_UP_SECONDS = 5.0

_context: Any = None
_pools: set[concurrent.futures.ProcessPoolExecutor] = set()


class Workers:
    """
    A number of processes, started when there is enough to do and ended when it is done.

    Work begins in this process. Others are started once they would save more time than they take to start, judged by
    the items done so far; never for what cannot be pickled (a task with a lambda for a loss, say).

    Args:
        count: processes; as many as there are processors where :obj:`None`.
        start_up_seconds: what it takes until a process can work; 0 starts them at once.

    """

    def __init__(self, count: int | None = None, start_up_seconds: float = _START_UP_SECONDS) -> None:
        self.count = count or os.cpu_count() or 1
        self._start_up_seconds = start_up_seconds

    def map(
        self, function: Callable[[Any, Item], Any], context: Any, items: Mapping[Key, Item]
    ) -> Iterator[tuple[Key, Any]]:
        """
        ``(key, function(context, item))`` of every item, as they are done.

        Args:
            function: importable, as processes need it.
            context: the same for all items; sent once per process.
            items: key -> item.

        """
        left, took = dict(items), 0.0
        for key, item in items.items():
            if self._would_save_time(len(left), took):
                break
            began = time.perf_counter()
            result = _here(function, context, item)
            took = time.perf_counter() - began
            del left[key]
            yield key, result
        if left:
            yield from self._in_processes(function, context, left)

    def _would_save_time(self, left: int, seconds: float) -> bool:
        """Whether processes would be sooner done with items that take ``seconds`` each, their start included."""
        count = min(self.count, left)
        return count > 1 and left * seconds * (1 - 1 / count) >= self._start_up_seconds

    def _in_processes(
        self, function: Callable[[Any, Item], Any], context: Any, left: Mapping[Key, Item]
    ) -> Iterator[tuple[Key, Any]]:
        packed = _pickled((function, context))
        if packed is None:
            yield from ((key, _here(function, context, item)) for key, item in left.items())
            return
        count = min(self.count, len(left))
        # In a file: arguments go through a pipe whose reading end is open here, too. If a process ends before it has
        # read them, whoever writes more than a pipe holds would wait for ever.
        with tempfile.TemporaryDirectory(prefix="ftte-") as folder:
            file = Path(folder) / "context.pickle"
            file.write_bytes(packed)
            pool = concurrent.futures.ProcessPoolExecutor(count, SPAWN, _prepare, (str(file), list(sys.path)))
            _pools.add(pool)
            try:
                waiting = {pool.submit(_work, item): key for key, item in left.items()}
                for future in concurrent.futures.as_completed(waiting):
                    yield waiting[future], future.result()
            except BaseException:
                _kill(pool)  # they do not hear Ctrl-C, and nobody wants what they still do
                raise
            finally:
                _pools.discard(pool)
                pool.shutdown(cancel_futures=True)


def stop_all() -> None:
    """End all processes at work: a thread that waits for one gets ``BrokenProcessPool``, and ends too."""
    for pool in list(_pools):
        _kill(pool)


def _kill(pool: concurrent.futures.ProcessPoolExecutor) -> None:
    for process in list(pool._processes.values()):
        process.kill()


def _here(function: Callable[[Any, Item], Any], context: Any, item: Item) -> Any:
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the same numbers as in a process of its own
    try:
        return function(context, item)
    finally:
        torch.set_num_threads(threads)


def _pickled(value: Any) -> bytes | None:
    try:
        return pickle.dumps(value)
    except (AttributeError, TypeError, pickle.PicklingError):
        return None


def _prepare(file: str, path: list[str]) -> None:
    import torch

    global _context  # noqa: PLW0603 a process of a pool has no other place for what it got once
    sys.path[:] = path
    torch.set_num_threads(1)
    # What the functions import has much to say about itself, once per process.
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    _context = pickle.loads(Path(file).read_bytes())


def _work(item: Any) -> Any:
    function, context = _context
    return function(context, item)
