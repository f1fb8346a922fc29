"""
Members of Android's classes by API level, from ``members.txt``: those that the product names, and all their overloads.

A new name in the product needs its lines there, from ``javap`` of the framework's code of each level.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from pathlib import Path

__all__ = ["LEVELS", "Member", "level_of", "members"]

LEVELS = (26, 29, 30, 31, 33, 34, 35, 36)
_LINE = re.compile(r"(all|[\d,]+) (.*)")
_MODIFIERS = re.compile(r"\b(?:public|protected|final|abstract|static|default) ")
# As javap's lists leave the package out.
_LANG = {
    "Object", "String", "CharSequence", "Class", "Runnable", "ClassLoader", "Throwable", "Integer", "Iterable",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Member:
    """
    A field, a method or a constructor (whose name is ``<init>``).

    ``parameters`` are Java's full names without generics, none for a field; ``value`` is a constant's text.
    """

    owner: str
    name: str
    kind: str
    parameters: tuple[str, ...] | None
    static: bool
    value: str
    levels: tuple[int, ...]


def level_of(api: int) -> int:
    """The newest listed level that is not above ``api``."""
    return max(level for level in LEVELS if level <= api)


@functools.cache
def members() -> dict[str, list[Member]]:
    """Class name -> its members."""
    found: dict[str, list[Member]] = {}
    owner = ""
    for line in Path(__file__).with_name("members.txt").read_text("utf-8").splitlines():
        if line.startswith("["):
            owner = line.strip("[]")
            found[owner] = []
        elif match := _LINE.fullmatch(line):
            levels = LEVELS if match[1] == "all" else tuple(int(word) for word in match[1].split(","))
            found[owner].append(_member(owner, match[2], levels))
    return found


def _member(owner: str, text: str, levels: tuple[int, ...]) -> Member:
    text, _, value = text.partition(" = ")
    static = re.search(r"\bstatic ", text) is not None
    text = re.sub(r" throws .*", "", _MODIFIERS.sub("", text))
    text = re.sub(r"^<[^(]*?> (?=\S)", "", text)
    head, bracket, rest = text.partition("(")
    kind, _, name = head.strip().rpartition(" ")
    if not kind:
        kind, name = name, "<init>"
    parameters = None
    if bracket:
        parameters = tuple(_full(word) for word in _split(rest.rstrip(")")))
    return Member(owner, name, _full(kind), parameters, static, value.strip('"'), levels)


def _split(text: str) -> list[str]:
    """At commas that are in no generics."""
    words, depth = [""], 0
    for letter in text:
        depth += (letter == "<") - (letter == ">")
        if letter == "," and depth == 0:
            words.append("")
        elif letter != " ":
            words[-1] += letter
    return [word for word in words if word]


def _full(name: str) -> str:
    plain = re.sub(r"<.*>", "", name).replace("...", "[]")
    base, dims = plain.rstrip("[]"), plain.count("[]") * "[]"
    return (f"java.lang.{base}" if base in _LANG else "java.lang.Object" if base == "T" else base) + dims
