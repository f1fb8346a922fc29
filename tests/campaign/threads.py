"""
Threads of a simulated process that wait for answers of another process.

What a gateway does in a thread asks its conductor, and blocks until the answer is here. In a federation there is one
real thread at a time: a call runs until it asks, the event loop goes on until it has the answer, and the call goes on
with it. So the order of things is the same each time.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable, Coroutine
from typing import Any

__all__ = ["LockInTurn", "ask", "in_thread"]

_CALL: contextvars.ContextVar[_Call | None] = contextvars.ContextVar("call", default=None)

# Threads that have nothing to do; starting one costs more than all that a call does.
_idle: list[_Thread] = []


class _Thread:
    """A real thread, which runs one call after the other, each when the event loop stands still for it."""

    def __init__(self) -> None:
        self.go = threading.Semaphore(0)
        self.call: _Call | None = None
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            self.go.acquire()
            call = self.call
            assert call is not None
            call.run()
            self.call = None
            _idle.append(self)
            call.stands.release()


class _Call:
    """A function in a thread."""

    def __init__(self, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self.stands = threading.Semaphore(0)  # the thread waits, or has ended
        self.question: Coroutine[Any, Any, Any] | None = None
        self.result: Any = None
        self.error: BaseException | None = None
        self._function = function
        self._args = args
        self._answer: Any = None
        self._raised: BaseException | None = None
        self._context = contextvars.copy_context()
        self._context.run(_CALL.set, self)
        self._thread = _idle.pop() if _idle else _Thread()

    def run(self) -> None:
        """In the thread."""
        try:
            self.result = self._context.run(self._function, *self._args)
        except BaseException as error:
            self.error = error

    def ask(self, question: Coroutine[Any, Any, Any]) -> Any:
        """In the thread: have the event loop answer."""
        self.question = question
        self.stands.release()
        self._thread.go.acquire()
        if self._raised is not None:
            raised, self._raised = self._raised, None
            raise raised
        return self._answer

    def go_on(self, answer: Any, raised: BaseException | None) -> Coroutine[Any, Any, Any] | None:
        """In the event loop: let the thread go on until it asks again; none if it has ended."""
        self.question, self._answer, self._raised = None, answer, raised
        self._thread.call = self
        self._thread.go.release()
        self.stands.acquire()
        return self.question


def ask(question: Coroutine[Any, Any, Any]) -> Any:
    """
    Wait for what a coroutine gives; to be called in a thread.

    Raises:
        AssertionError: if this is the event loop, which would never answer.

    """
    call = _CALL.get()
    if call is None:
        question.close()
        raise AssertionError("a gateway asks its conductor in the event loop, which waits for the answer for ever")
    return call.ask(question)


async def in_thread(function: Callable[..., Any], *args: Any) -> Any:
    """What a function gives that may :func:`ask`."""
    call = _Call(function, args)
    question = call.go_on(None, None)
    while question is not None:
        answer, raised = None, None
        try:
            answer = await question
        except BaseException as error:  # a process that ends as well: its thread unwinds
            raised = error
        question = call.go_on(answer, raised)
    if call.error is not None:
        raise call.error
    return call.result


class LockInTurn:
    """A lock whose holder may :func:`ask`: who waits for it lets the event loop go on, as a real thread does."""

    def __init__(self) -> None:
        self._held = False

    def __enter__(self) -> None:
        while self._held:
            ask(asyncio.sleep(0.001))
        self._held = True

    def __exit__(self, *error: object) -> None:
        self._held = False
