"""Python objects by their name, ``package.module:attribute``, as ASGI servers do it."""

from __future__ import annotations

import importlib
from typing import Any

__all__ = ["load_attribute"]


def load_attribute(reference: str, what: str = "function") -> Any:
    """
    The object that ``reference`` names.

    Args:
        reference: ``package.module:attribute``.
        what: what it should be, for the message of an error.

    Raises:
        ValueError: if ``reference`` is malformed, the module cannot be imported, or it has no such attribute.

    """
    module_name, separator, attribute = reference.partition(":")
    if not (module_name and separator and attribute):
        raise ValueError(f"{reference!r} does not name a {what}: write package.module:{what}")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ValueError(f"the {what}'s module {module_name!r} cannot be imported: {error}") from error
    if not hasattr(module, attribute):
        raise ValueError(f"the module {module_name!r} has no attribute {attribute!r}")
    return getattr(module, attribute)
