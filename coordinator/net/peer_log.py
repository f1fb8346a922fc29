"""Log lines that a peer can cause: limited by kind and peer, and its words escaped and cut."""

from __future__ import annotations

import collections
import logging
import time
from collections.abc import Callable

from .admission import Rate

__all__ = ["MOST_CHARACTERS", "PeerLog", "shown"]

# Lines of one kind about one peer, and about all peers together; a few seconds' worth of them may come at once.
LINES_PER_SECOND = 0.5
ALL_LINES_PER_SECOND = 20.0
BURST_SECONDS = 20.0

# Peers whose lines are counted; of more, those that were heard of last.
MOST_PEERS = 1_000

# Characters of a peer's words in a line.
MOST_CHARACTERS = 300


def shown(words: object) -> str:
    """What a peer said, as a log or a terminal may carry it: printable, on one line, and not too long."""
    text = str(words)
    if len(text) > MOST_CHARACTERS:
        text = text[: MOST_CHARACTERS - 3] + "..."
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "replace").decode() for c in text)


class PeerLog:
    """
    Writes warnings about peers.

    Whoever can cause a line can cause many, and fill the operator's disk. Of each kind of line (its format) every peer
    has few, and all peers together have some more; the next line that is written says how many were left out.

    Args:
        log: where lines go.
        clock: a monotonic time in seconds.

    """

    def __init__(self, log: logging.Logger, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._clock = clock
        self._rates: collections.OrderedDict[tuple[str, str], Rate] = collections.OrderedDict()
        self._kinds: dict[str, Rate] = {}
        self._left_out: collections.Counter[str] = collections.Counter()

    def warning(self, peer: str, kind: str, *words: object) -> None:
        """
        Write a line, if there is room for it.

        Args:
            peer: whom it is about: a device's name, or what strangers have in common.
            kind: the line's format; one of few.
            words: what is put into it; escaped and cut.

        """
        key = (peer, kind)
        mine = self._rates.setdefault(key, Rate(LINES_PER_SECOND, BURST_SECONDS))
        self._rates.move_to_end(key)
        if len(self._rates) > MOST_PEERS:
            self._rates.popitem(last=False)
        everybody = self._kinds.setdefault(kind, Rate(ALL_LINES_PER_SECOND, BURST_SECONDS))
        now = self._clock()
        if not (mine.take(now) and everybody.take(now)):
            self._left_out[kind] += 1
            return
        more = self._left_out.pop(kind, 0)
        words = tuple(shown(word) for word in words)
        if more:
            self._log.warning(f"{kind} (%d more lines like this were left out)", *words, more)
        else:
            self._log.warning(kind, *words)
