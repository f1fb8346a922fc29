"""
Python in Robolectric's sandbox, in one process: pyjnius starts the JVM, Robolectric makes the framework of one level,
and its main thread, Android's UI thread, comes back here through a native method of a class of the sandbox.

JNI's FindClass uses the loader of the innermost Java frame: that of the sandbox there, and in PythonService's thread;
a thread that Python made finds the system's classes only, as on ART.
"""

from __future__ import annotations

import ctypes
import os
import traceback
from collections.abc import Callable
from typing import Any

from tests.android.api import Member, level_of, members

from . import parts
from .build import Built

__all__ = ["Sandbox"]

_DOOR = ctypes.CFUNCTYPE(None, *[ctypes.c_char_p] * 5)


class Sandbox:
    """
    One level of Android in this process.

    Args:
        level: its number.
        built: the app.
        service: called where python-for-android's service runs Python, with entry, argument, folder of the app, and
            private folder; in a thread of Java's.

    """

    def __init__(self, level: int, built: Built, service: Callable[..., None]) -> None:
        self._level = level
        self._built = built
        self._doors: dict[str, Callable[..., None]] = {"service": service}
        self._failure = ""
        self._door = _DOOR(self._enter)  # kept: C calls it

    def run(self, main: Callable[[], None]) -> str:
        """Call ``main`` on Android's main thread; returns what went wrong, empty if nothing."""
        home = parts.java_home(self._level)
        assert home is not None
        os.environ["JAVA_HOME"] = str(home)
        import jnius_config

        options = [
            "-Xrs", "-Xmx2g", "-Xshare:auto", "-XX:TieredStopAtLevel=1", "-Drobolectric.offline=true",
            f"-Drobolectric.dependency.dir={parts.CACHE / 'sdk'}", f"-Drobolectric.enabledSdks={self._level}",
            f"-Dftte.gate={self._built.gate}", f"-Dftte.app={self._built.app}/",
            *(f"--add-opens=java.base/{package}=ALL-UNNAMED" for package in
              ("java.net", "java.io", "java.lang", "jdk.internal.access")),
            "--add-exports=java.base/jdk.internal.access=ALL-UNNAMED",
        ]  # fmt: skip
        jnius_config.add_options(*options)
        # The newest framework behind: shadows name newer classes than a level has, and would not link without them.
        path = [self._built.kit, *parts.libraries(), parts.newest()]
        jnius_config.set_classpath(*map(str, path))
        ctypes.CDLL(str(self._built.gate), mode=ctypes.RTLD_GLOBAL).set_door(self._door)
        self._doors["gate"] = lambda *_: main()
        as_on_art(self._level)
        from jnius import autoclass

        said = str(autoclass("org.ftte.robo.Start").run("org.ftte.robo.InSandbox"))
        return said + self._failure

    def _enter(self, what: bytes, *arguments: bytes) -> None:
        try:
            self._doors[what.decode()](*[(argument or b"").decode() for argument in arguments])
        except BaseException:
            self._failure += traceback.format_exc()


def as_on_art(level: int) -> None:
    """
    Let pyjnius see what an app sees: no constructor that Robolectric added, no member that the SDK hides.

    Both change how it picks among overloads. Only members that the product names are known here.
    """
    import jnius
    from jnius import reflect

    listed = level_of(level)
    known: dict[str, dict[str, list[Member]]] = {}
    for owner, all_members in members().items():
        for member in all_members:
            known.setdefault(owner, {}).setdefault(member.name, []).append(member)

    def shown(owner: str, name: str, parameters: tuple[str, ...] | None) -> bool:
        if name not in known.get(owner, {}):
            return True
        return any(member.parameters == parameters and listed in member.levels for member in known[owner][name])

    class Seen:
        """java.lang.Class whose lists leave out what an app does not see."""

        def __init__(self, real: Any) -> None:
            self._real = real

        def __getattr__(self, name: str) -> Any:
            return getattr(self._real, name)

        def __hash__(self) -> int:
            return hash(self._real)

        def __eq__(self, other: object) -> bool:
            return bool(self._real == getattr(other, "_real", other))

        def getDeclaredMethods(self) -> list[Any]:
            owner = self._real.getName()
            return [m for m in self._real.getDeclaredMethods() if shown(owner, m.getName(), types(m))]

        def getDeclaredFields(self) -> list[Any]:
            owner = self._real.getName()
            return [f for f in self._real.getDeclaredFields() if shown(owner, f.getName(), None)]

    def types(method: Any) -> tuple[str, ...]:
        return tuple(readable(kind.getName()) for kind in method.getParameterTypes())

    hierarchy = reflect.identify_hierarchy

    def seen(cls: Any, depth: int, concrete: bool = True) -> Any:
        for found, number in hierarchy(cls, depth, concrete):
            real = getattr(found, "_real", found)
            yield (Seen(real) if real.getName() in known else real), number

    reflect.identify_hierarchy = seen
    original = reflect.autoclass

    def autoclass(name: str, *arguments: Any, **options: Any) -> Any:
        cls = original(name, *arguments, **options)
        constructors = known.get(name, {}).get("<init>")
        if constructors and "_seen" not in cls.__dict__:
            allowed = {
                "(" + "".join(map(signature, m.parameters or ())) + ")V" for m in constructors if listed in m.levels
            }
            cls.__javaconstructor__ = [one for one in cls.__javaconstructor__ if one[0] in allowed]
            cls._seen = True
        return cls

    reflect.autoclass = jnius.autoclass = autoclass


_PRIMITIVES = {
    "boolean": "Z", "byte": "B", "char": "C", "short": "S", "int": "I", "long": "J", "float": "F", "double": "D",
}  # fmt: skip


def readable(name: str) -> str:
    """``[Ljava.lang.String;`` as ``java.lang.String[]``."""
    dims = len(name) - len(name.lstrip("["))
    base = name[dims:]
    if dims:
        back = {short: long for long, short in _PRIMITIVES.items()}
        base = back[base] if base in back else base[1:-1]
    return base + "[]" * dims


def signature(name: str) -> str:
    """A type as JNI writes it."""
    dims = name.count("[]")
    base = name.removesuffix("[]" * dims)
    return "[" * dims + (_PRIMITIVES.get(base) or f"L{base.replace('.', '/')};")
