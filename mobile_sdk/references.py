"""Python objects by their name, ``package.module:attribute``, as ASGI servers do it."""

from __future__ import annotations

import difflib
import importlib
from pathlib import Path
from typing import Any

from .errors import FtteError
from .user_code import say_where_raised

__all__ = ["load_attribute"]


def load_attribute(reference: str, what: str = "function") -> Any:
    """
    The object that ``reference`` names.

    Args:
        reference: ``package.module:attribute``.
        what: what it should be, for the message of an error.

    Raises:
        ValueError: if ``reference`` is malformed, the module cannot be imported, or it has no such attribute; with file
            and line where the module itself fails.
        FtteError: if the module raises one.

    """
    module_name, separator, attribute = reference.partition(":")
    if not (module_name and separator and attribute):
        raise ValueError(f"{reference!r} does not name a {what}: write package.module:{what}")
    try:
        module = importlib.import_module(module_name)
    except FtteError:
        raise  # of ours, about what the module does: it says what is wrong
    except (Exception, SystemExit) as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing is not None and (module_name == missing or module_name.startswith(f"{missing}.")):
            raise ValueError(
                f"there is no module {missing!r} for the {what} {reference!r}: it was looked for in the folder where "
                f"this was started, {Path.cwd()}, and among the installed packages"
            ) from error
        raise ValueError(f"the {what}'s module {module_name!r} fails {say_where_raised(error)}") from error
    if not hasattr(module, attribute):
        close = difflib.get_close_matches(attribute, [name for name in vars(module) if name[0] != "_"], n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"the module {module_name!r} has no attribute {attribute!r}{hint}")
    return getattr(module, attribute)
