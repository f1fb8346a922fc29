"""Calls into a task's own functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from mobile_sdk.errors import FtteError
from mobile_sdk.user_code import say_where_raised

from .errors import TaskError

__all__ = ["call_users"]

_Result = TypeVar("_Result")


def call_users(function: Callable[[], _Result], what: str) -> _Result:
    """
    What a function of the user's gives.

    Args:
        function: called without arguments.
        what: what it is, for the message, such as ``"held_out"``.

    Raises:
        TaskError: if it raises: with the file and line of the user's code, and what was raised.

    """
    try:
        return function()
    except FtteError:
        raise
    except (Exception, SystemExit) as error:
        raise TaskError(f"{what} fails {say_where_raised(error)}") from error
