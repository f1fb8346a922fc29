"""
Add what the pydantic models know to the reference pages of the run file and the scenario file.

A page has a section's name as its heading (``## `[merge.staleness]` ``) and a table of keys with their meanings under
it. The site's tables get the type, the limits and the default of each key from the model, so they cannot drift. A key
that is missing in a table, or not in the model, ends the build.
"""

from __future__ import annotations

import re
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, SecretStr
from pydantic.fields import FieldInfo

from coordinator.config import Config
from coordinator.simulation.world.scenario import DataSection, DeviceSection, SimulationSection, StragglerSection
from mobile_sdk.sizes import parse_bytes

__all__ = ["PAGES", "describe_default", "describe_type", "fill", "run_file_sections"]

WORDS = {bool: "`true`, `false`", int: "whole number", float: "number", str: "text", SecretStr: "text", Path: "path"}
HEADING = re.compile(r"^#+ `\[([\w.-]+)\]`", re.MULTILINE)


def run_file_sections(model: type[BaseModel] = Config, prefix: str = "") -> dict[str, type[BaseModel]]:
    """Every table of a run file by its dotted name, except ``[budgets]``, whose keys are the user's."""
    found: dict[str, type[BaseModel]] = {}
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            found[prefix + name] = kind
            found |= run_file_sections(kind, f"{prefix}{name}.")
    return found


PAGES: Mapping[str, Mapping[str, type[BaseModel]]] = {
    "reference/run-file.md": run_file_sections(),
    "reference/scenario.md": {
        "simulation": SimulationSection,
        "data": DataSection,
        "devices.NAME": DeviceSection,
        "stragglers": StragglerSection,
    },
}


def fill(text: str, sections: Mapping[str, type[BaseModel]]) -> str:
    """
    The page with full tables.

    Args:
        text: the page, in Markdown.
        sections: the model of each section that the page describes.

    Raises:
        ValueError: if a section or a key is missing in the page, or is there and not in the model.

    """
    parts = HEADING.split(text)
    described = dict(zip(parts[1::2], parts[2::2], strict=True))
    if missing := set(sections) - set(described):
        raise ValueError(f"no heading for the sections {sorted(missing)}")
    for name, model in sections.items():
        body = described[name]
        text = text.replace(f"`[{name}]`{body}", f"`[{name}]`{_filled(name, body, model)}")
    return text


def _filled(section: str, body: str, model: type[BaseModel]) -> str:
    table = re.search(r"^\| key \| meaning \|\n\|[-|]+\|\n((?:\|.*\n)*)", body, re.MULTILINE)
    if table is None:
        raise ValueError(f"[{section}] has no table of keys and meanings")
    rows = dict(re.findall(r"^\| `([\w.-]+)` \| (.*) \|$", table[1], re.MULTILINE))
    own = {name: field for name, field in model.model_fields.items() if not _is_table(field)}
    if set(rows) != set(own):
        missing, unknown = sorted(set(own) - set(rows)), sorted(set(rows) - set(own))
        raise ValueError(f"[{section}]: keys that are not described {missing}, keys that the model has not {unknown}")
    lines = ["| key | type | default | meaning |", "|---|---|---|---|"]
    lines += [f"| `{k}` | {describe_type(own[k])} | {describe_default(own[k])} | {rows[k]} |" for k in rows]
    return body.replace(table[0], "\n".join(lines) + "\n")


def _is_table(field: FieldInfo) -> bool:
    return isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)


def describe_type(field: FieldInfo) -> str:
    """A field's type and limits in words."""
    return _describe(field.annotation, field.metadata)


def _describe(kind: Any, metadata: Any) -> str:
    while get_origin(kind) is Annotated:
        kind, *more = get_args(kind)
        metadata = [*metadata, *more]
    metadata = [one for part in metadata for one in (part.metadata if isinstance(part, FieldInfo) else [part])]
    if any(isinstance(one, BeforeValidator) and one.func is parse_bytes for one in metadata):
        return "size"
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        return " or ".join(_describe(part, metadata) for part in get_args(kind) if part is not type(None))
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in get_args(kind))
    if origin is dict:
        return f"table of names, each a {_describe(get_args(kind)[1], [])}"
    if origin is tuple:
        inner = get_args(kind)
        return f"list of {_describe(inner[0], [])}s" if get_origin(inner[0]) is not tuple else "list of pairs"
    limits = []
    for one in metadata:
        for name, sign in (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<")):
            if getattr(one, name, None) is not None:
                limits.append(f"{sign} {_number(getattr(one, name))}")
    return ", ".join([WORDS[kind], *(limit for limit in limits if "e+30" not in limit)])


def describe_default(field: FieldInfo) -> str:
    """A field's default as a run file would write it."""
    if field.is_required():
        return "**needed**"
    value = field.get_default(call_default_factory=True)
    if value is None or value in ("", (), {}):
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return _number(value) if isinstance(value, int | float) else f"`{value}`"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 10_000 and value == int(value) < 1e30 else f"{value:g}"
