"""
From a valid update to an acknowledged one.

Updates that come while others are being written are written together: one folder sync and one
transaction for all of them (group commit), so that many devices cost little more than one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from mobile_sdk.clock import Offload

from ..errors import StoreUnavailable
from ..merge.sums import Elements
from ..store.interface import UpdateStore
from ..store.records import UpdateRecord
from .buffer import BufferedUpdate

__all__ = ["GroupCommit"]


_Waiting = tuple[UpdateRecord, bytes | memoryview, Elements, asyncio.Future[bool]]


class GroupCommit:
    """
    Writes updates down, then puts them into the buffer.

    Args:
        store: where they are written.
        deliver: called with each new update once it is durable, in the event loop.
        offload: runs the store's blocking calls.

    """

    def __init__(self, store: UpdateStore, deliver: Callable[[BufferedUpdate], None], offload: Offload) -> None:
        self._store = store
        self._deliver = deliver
        self._offload = offload
        self._waiting: list[_Waiting] = []
        self._writer: asyncio.Task[None] | None = None

    async def accept(self, record: UpdateRecord, content: bytes | memoryview, delta: Elements) -> bool:
        """
        Write an update down.

        Args:
            record: the update's row.
            content: its file.
            delta: its elements in the order of its tier's positions: float32, or integers on steps.

        Returns:
            Whether it is new; false if this update was accepted before. Either way it is durable.

        Raises:
            StoreUnavailable: if nothing can be written just now.
            Expelled: if the update's device was revoked or withdrawn.

        """
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append((record, content, delta, future))
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write())
        return await future

    async def _write(self) -> None:
        while self._waiting:
            group, self._waiting = self._waiting, []
            await self._write_group(group)

    async def _write_group(self, group: Sequence[_Waiting]) -> None:
        try:
            new = await self._offload(self._accept, group)
        except Exception as error:
            if len(group) > 1 and not isinstance(error, StoreUnavailable):
                # One of them is at fault, its device was revoked, say: the others are not to suffer.
                for one in group:
                    await self._write_group([one])
                return
            # A full disk, say: nobody is acknowledged, every device keeps its update and tries again.
            for _, _, _, future in group:
                if not future.done():
                    future.set_exception(error)
            return
        for record, _, _, future in group:
            update = new.pop(record.assignment, None)
            if update is not None:
                self._deliver(update)
            if not future.done():
                future.set_result(update is not None)

    def _accept(self, group: Sequence[_Waiting]) -> dict[str, BufferedUpdate]:
        """Write them down: those that were not known, by assignment, as they go into the buffer. Blocks."""
        # Of updates of one assignment the first counts. Measured before: nothing may fail once they are written down.
        measured = {r.assignment: BufferedUpdate.measured(r, delta) for r, _, delta, _ in reversed(group)}
        new = self._store.accept([(record, content) for record, content, _, _ in group])
        return {assignment: measured[assignment] for assignment in new}
