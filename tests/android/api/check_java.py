"""Android's members in the app's compiled Java: those of newer levels stand in a class named after it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from . import LEVELS, members

__all__ = ["faults"]

_USE = re.compile(r"// (?:Interface)?(?:Method|Field) (\S+)")
# Where a member may be declared, from the class that names it upwards.
_ABOVE = {
    "android.app.Service": ["android.content.ContextWrapper", "android.content.Context"],
    "android.app.job.JobService": ["android.app.Service", "android.content.ContextWrapper", "android.content.Context"],
    "android.os.PersistableBundle": ["android.os.BaseBundle"],
    "android.content.pm.ApplicationInfo": ["android.content.pm.PackageItemInfo"],
    "android.os.Bundle": ["android.os.BaseBundle"],
}
_LETTERS = {
    "Z": "boolean", "B": "byte", "C": "char", "S": "short", "I": "int", "J": "long", "F": "float", "D": "double",
}  # fmt: skip


def faults(classes: Path, package: str) -> list[str]:
    """
    What is wrong with the compiled classes of a package, a sentence each.

    A class whose name ends with ``ApiNN`` is entered at level NN and above only.
    """
    found = []
    for file in sorted((classes / package.replace(".", "/")).glob("*.class")):
        name = f"{package}.{file.stem}"
        text = subprocess.run(
            ["javap", "-c", "-p", "-cp", classes, name], capture_output=True, text=True, check=True
        ).stdout
        above = re.search(r"extends ([\w.$]+)", text)
        guard = re.search(r"Api(\d+)$", file.stem)
        least = int(guard[1]) if guard else LEVELS[0]
        for use in dict.fromkeys(_USE.findall(text)):
            found += _check(use, name, above[1] if above else "", least)
    return found


def _check(use: str, name: str, above: str, least: int) -> list[str]:
    head, _, descriptor = use.partition(":")
    owner, _, member = head.replace('"', "").rpartition(".")
    owner = owner.replace("/", ".") or name
    inherited = owner == name or not owner.startswith("android.")
    if inherited and not above.startswith("android."):
        return []
    start = above if inherited else owner
    chain = [start, *_ABOVE.get(start, [])]
    parameters = _parameters(descriptor) if descriptor.startswith("(") else None
    listed = [m for each in chain for m in members().get(each, []) if m.name == member and m.parameters == parameters]
    if not listed:
        # One's own method or field, or one of java.lang.Object.
        return [] if inherited else [f"{name}: {owner}.{member} {descriptor} is in no list: add it to members.txt"]
    levels = {level for m in listed for level in m.levels}
    lacking = [level for level in LEVELS if level >= least and level not in levels]
    return [f"{name}: {owner}.{member} is missing at level {level}" for level in lacking[:1]]


def _parameters(descriptor: str) -> tuple[str, ...]:
    found = []
    for dims, letter, long in re.findall(r"(\[*)(?:([ZBCSIJFD])|L([^;]+);)", descriptor[1 : descriptor.index(")")]):
        found.append((_LETTERS[letter] if letter else long.replace("/", ".")) + "[]" * len(dims))
    return tuple(found)
