"""The trainer's process: ``python -m ftte_demo.trainer FOLDER``."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import logging.handlers
import os
import signal
import sys
from pathlib import Path

from mobile_sdk.system.locks import hold_lock

from ..rest import Rest
from .system import Desktop, System
from .trainer import Trainer

__all__ = ["run"]

log = logging.getLogger(__name__)

_LOG_BYTES = 200_000
# Training waits for the screens, never the other way round.
_NICENESS = 10


def run(folder: Path, system: System | None = None) -> int:
    """
    Train in this process until told to stop, or make one visit if the system asks for no more.

    Args:
        folder: the app's private folder.
        system: what it runs on; a desktop if left out.

    Returns:
        The exit code: 0, also where another trainer is at work on the folder already; 1 after an error, now logged.

    """
    os.nice(max(0, _NICENESS - os.getpriority(os.PRIO_PROCESS, 0)))
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    _log_to(folder / "trainer.log")
    with hold_lock(folder / "trainer.lock") as free:
        if not free:
            log.info("another trainer is at work on %s", folder)
            return 0
        rest = Rest(folder)
        rest.clear()
        try:
            why = asyncio.run(_main(folder, system or Desktop()))
        except Exception:
            log.exception("the trainer ended by an error")
            rest.write("failed")
            return 1
        rest.write(why)
        log.info("the trainer ends: %s", why)
    return 0


async def _main(folder: Path, system: System) -> str:
    trainer = Trainer(folder, system)
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGINT, signal.SIGTERM):
        try:
            loop.add_signal_handler(signum, trainer.stop)
        except (RuntimeError, ValueError, OSError):
            break  # not the main thread: tests of Android's framework run it in a thread of Java's

    def asked() -> None:
        # In Android's main thread: the button was pressed, or the system's time is up.
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(trainer.stop, system.stop_reason() or "stopped")

    system.on_stop(asked)
    return await trainer.run()


def _log_to(path: Path) -> None:
    handler = logging.handlers.RotatingFileHandler(path, maxBytes=_LOG_BYTES, backupCount=1, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])


if __name__ == "__main__":
    sys.exit(run(Path(sys.argv[1])))
