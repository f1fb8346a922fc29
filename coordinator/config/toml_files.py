"""What is wrong with a TOML file, in our own words: key, value, and what it should be."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from ..errors import ConfigError

__all__ = ["explain", "override", "read_toml"]

_PATTERNS = {
    "task": "write package.module:task",
    "data": "write package.module:function",
    "source": "write package.module:function",
    "name": "use at most 64 letters, digits, '.', '_' and '-', and a letter or digit first",
    "public_url": "write wss://host:port",
    "listen": "write host:port",
    "address": "write host:port",
    "conductor": "write host:port",
}
_TYPES = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "string": "a text in quotes",
    "list": "a list",
    "tuple": "a list",
    "dict": "a table",
    "path": "a path in quotes",
}
# The password of an address is not repeated.
_PASSWORD = re.compile(r"(://[^:/@\s]*:)[^/\s]*@")
# Sections of a scenario that a run file has not.
_SCENARIO = ("simulation", "data", "devices", "stragglers")


def read_toml(path: Path, what: str, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """
    The contents of a TOML file, with ``section.key=value`` of a command line in place of the file's.

    Args:
        path: the file.
        what: to call it in messages.
        overrides: ``section.key=value``; the value is TOML, or else text.

    Raises:
        ConfigError: if it cannot be read, is not TOML, or an override is malformed.

    """
    try:
        text = path.read_text()
    except OSError as error:
        raise ConfigError(f"cannot read the {what} {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not TOML: it is no text in UTF-8") from error
    try:
        data = tomllib.loads(text)
    except RecursionError as error:
        raise ConfigError(f"{path} is not a {what}: its lists or tables are nested too deeply") from error
    except ValueError as error:  # a TOMLDecodeError, or what a number of thousands of digits gives
        raise ConfigError(f"{path} is not TOML: {error}{_hint(text, str(error))}") from error
    for words in overrides:
        override(data, words)
    return data


def override(data: dict[str, Any], words: str) -> None:
    """
    Set what ``section.key=value`` names; the value as TOML has it, and a text needs no quotes.

    Raises:
        ConfigError: if it is not of this form.

    """
    key, separator, value = words.partition("=")
    *sections, name = key.strip().split(".")
    if not separator or not all([*sections, name]):
        raise ConfigError(f"--set {words}: write it like merge.buffer=20")
    table = data
    for section in sections:
        table = table.setdefault(section, {})
        if not isinstance(table, dict):
            raise ConfigError(f"--set {words}: {section} is no section")
    try:
        table[name] = tomllib.loads(f"value = {value.strip()}")["value"]
    except (ValueError, RecursionError):
        table[name] = value.strip()


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """The first mistake that a model has found: ``key: what is wrong``."""
    first = error.errors()[0]
    # A key that takes one of several types has their names behind its own; nobody wrote those.
    location = tuple(part for part in first["loc"] if isinstance(part, int) or not _is_type(part))
    where = ".".join(str(part) for part in location) or "the file"
    return f"{where}: {_words(first, model, location)}"


def _is_type(part: str) -> bool:
    return part.startswith(("constrained-", "literal[", "function-"))


def _words(first: Any, model: type[BaseModel], location: tuple[int | str, ...]) -> str:
    kind, given, context = first["type"], first.get("input"), first.get("ctx", {})
    if kind == "extra_forbidden":
        if len(location) == 1 and location[0] in _SCENARIO:
            return "a run file has no such section: this is a scenario, for `ftte simulate`"
        return f"there is no such key{_suggestion(location, model)}"
    if kind == "missing":
        return _missing(location, model)
    if kind == "string_pattern_mismatch":
        return f"{_shown(given)} is not possible: {_PATTERNS.get(str(location[-1]), 'it has another form')}"
    if kind == "literal_error":
        wanted = str(context.get("expected", ""))
        known = [name.strip(" '") for name in wanted.replace(" or ", ",").split(",")]
        close = difflib.get_close_matches(str(given), known, n=1)
        return f"{_shown(given)} is not possible: use {wanted}" + (f"; did you mean {close[0]!r}?" if close else "")
    for limit, relation in (
        ("greater_than_equal", "at least"),
        ("greater_than", "more than"),
        ("less_than_equal", "at most"),
        ("less_than", "less than"),
    ):
        if kind == limit:
            return f"{_shown(given)} is not possible: it must be {relation} {next(iter(context.values())):g}"
    if kind == "finite_number":
        return f"{_shown(given)} is not possible: it must be finite"
    wanted = _TYPES.get(kind.partition("_")[0], "")
    if wanted and kind.endswith(("_type", "_parsing", "_from_float")):
        return f"{_shown(given)} is not {wanted}"
    words = str(first["msg"])
    return words.removeprefix("Value error, ")


def _missing(location: tuple[int | str, ...], model: type[BaseModel]) -> str:
    """What a key or section that has to be there wants."""
    section = _section_at(location[:-1], model)
    if not _is_section(section) or location[-1] not in section.model_fields:
        return "it is missing"
    name = str(location[-1])
    annotation = section.model_fields[name].annotation
    inner = next((each for each in (annotation, *getattr(annotation, "__args__", ())) if _is_section(each)), None)
    if inner is not None:
        title = ".".join(map(str, location)) + ("" if inner is annotation else ".NAME")
        needed = [key for key, field in inner.model_fields.items() if field.is_required()]
        keys = ", ".join(needed or inner.model_fields)
        return f"it is missing: add the section [{title}] with {keys}"
    if getattr(annotation, "__origin__", None) is not None and str(annotation).startswith(("dict", "collections")):
        return f"it is missing: add the section [{name}]"
    wanted = _TYPES.get({"str": "string"}.get(getattr(annotation, "__name__", ""), getattr(annotation, "__name__", "")))
    where = f"[{'.'.join(map(str, location[:-1]))}]" if len(location) > 1 else "the file"
    return f"it is missing: add `{name} = ...` to {where}" + (f", {wanted}" if wanted else "")


def _suggestion(location: tuple[int | str, ...], model: type[BaseModel]) -> str:
    """What may have been meant by a key that is not known."""
    section = _section_at(location[:-1], model)
    if not _is_section(section):
        return ""
    close = difflib.get_close_matches(str(location[-1]), section.model_fields, n=1)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; {location[-2] if len(location) > 1 else 'a run file'} has {', '.join(section.model_fields)}"


def _section_at(location: tuple[int | str, ...], model: type[BaseModel]) -> Any:
    """The model of the section that these parts of a key lead to; none if there is no such."""
    section: Any = model
    for part in location:
        if _is_section(section):
            field = section.model_fields.get(str(part))
            section = None if field is None else field.annotation
        else:  # a table of sections, such as [devices.watch]: this part is the name of one of them
            section = next((inner for inner in getattr(section, "__args__", ()) if _is_section(inner)), None)
    return section


def _is_section(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, BaseModel)


def _hint(text: str, error: str) -> str:
    """The line that is wrong, and what is usually wrong with it."""
    numbers = [int(word) for word in error.replace(",", " ").replace(")", " ").split() if word.isdecimal()]
    lines = text.splitlines()
    if "line" not in error or not numbers or not 0 < numbers[0] <= len(lines):
        return ""
    line = _PASSWORD.sub(r"\1***@", lines[numbers[0] - 1].strip())
    quotes = "; a text needs quotes" if "Invalid value" in error else ""
    return f": {line!r}{quotes}"


def _shown(given: Any) -> str:
    text = repr(given)
    return text if len(text) <= 80 else text[:77] + "..."
