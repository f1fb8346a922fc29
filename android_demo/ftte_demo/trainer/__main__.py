"""The trainer's process: ``python -m ftte_demo.trainer FOLDER``."""

from __future__ import annotations

import asyncio
import logging
import logging.handlers
import os
import signal
import sys
from pathlib import Path

from mobile_sdk.system.locks import hold_lock

from .shown import Shown
from .trainer import Trainer

__all__ = ["run"]

_LOG_BYTES = 200_000
# Training waits for the screens, never the other way round.
_NICENESS = 10


def run(folder: Path, shown: Shown | None = None) -> int:
    """
    Train in this process until told to stop.

    Args:
        folder: the app's private folder.
        shown: where the system shows what goes on; nowhere if left out.

    Returns:
        The exit code: 0, also where another trainer is at work on the folder already.

    """
    os.nice(max(0, _NICENESS - os.getpriority(os.PRIO_PROCESS, 0)))
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    _log_to(folder / "trainer.log")
    with hold_lock(folder / "trainer.lock") as free:
        if not free:
            logging.getLogger(__name__).info("another trainer is at work on %s", folder)
            return 0
        asyncio.run(_main(folder, shown))
    return 0


async def _main(folder: Path, shown: Shown | None) -> None:
    trainer = Trainer(folder, shown)
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGINT, signal.SIGTERM):
        try:
            loop.add_signal_handler(signum, trainer.stop)
        except (RuntimeError, ValueError, OSError):
            break  # not the main thread: a service of python-for-android
    if shown is not None:
        shown.on_stop(lambda: _from_elsewhere(loop, trainer))
    await trainer.run()


def _from_elsewhere(loop: asyncio.AbstractEventLoop, trainer: Trainer) -> None:
    """The notification's button is pressed in a thread of Android's."""
    loop.call_soon_threadsafe(trainer.stop)


def _log_to(path: Path) -> None:
    handler = logging.handlers.RotatingFileHandler(path, maxBytes=_LOG_BYTES, backupCount=1, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])


if __name__ == "__main__":
    sys.exit(run(Path(sys.argv[1])))
