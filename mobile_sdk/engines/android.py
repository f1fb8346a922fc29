"""
Run programs with ExecuTorch's Android archive, through the Java class in ``mobile_sdk/java``.

The archive offers Java only: its library exports nothing else. What changes between calls crosses as bytes; weights
that lie in mapped files are told by path and offset, and mapped again in the bridge.
"""

from __future__ import annotations

import functools
import re
import threading
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..durable_files import located
from ..errors import ProgramError
from ..manifest import ANDROID_ARCHIVE, PROGRAM_FILE, Manifest, TensorSpec
from .call import Call
from .calling_engine import CallingEngine
from .dropout import DRAWN
from .runtime_build import mapped_build

__all__ = ["JAVA_SOURCES", "AndroidEngine", "bridge_class"]

# For the app's build: `android.add_src` of buildozer.
JAVA_SOURCES = Path(__file__).parents[1] / "java"

_DTYPES = ("float32", "int64", "int32", "uint8")
# runtime/core/error.h of ExecuTorch, whose numbers the archive's messages have.
_ERRORS = {
    0x01: "Internal", 0x02: "InvalidState", 0x03: "EndOfMethod", 0x10: "NotSupported", 0x11: "NotImplemented",
    0x12: "InvalidArgument", 0x13: "InvalidType", 0x14: "OperatorMissing", 0x20: "NotFound",
    0x21: "MemoryAllocationFailed", 0x22: "AccessFailed", 0x23: "InvalidProgram", 0x24: "InvalidExternalData",
    0x25: "OutOfResources", 0x30: "DelegateInvalidCompatibility", 0x31: "DelegateMemoryAllocationFailed",
    0x32: "DelegateInvalidHandle",
}  # fmt: skip


@functools.cache
def bridge_class() -> Any:
    """
    The Java class, found once.

    On Android a thread that Python made sees the system's classes only, so the first call must come from the main
    thread of the app, or of its service. :class:`~mobile_sdk.client.Client` calls it when it is made.

    Raises:
        ProgramError: if there is no Java here, or not the class.

    """
    try:
        from jnius import JavaException, autoclass
    except Exception as error:  # pyjnius raises whatever its search for a JVM ends with
        raise ProgramError(f"the engine 'android' needs pyjnius and a Java machine: {error}") from error
    try:
        return autoclass("org.ftte.sdk.Bridge")
    except JavaException as error:
        thread = threading.current_thread()
        if thread is not threading.main_thread():
            raise ProgramError(
                f"the class org.ftte.sdk.Bridge is not found in the thread {thread.name!r}, and was "
                "not looked for in the main thread before, where Android shows the app's classes: make the Client, or "
                "call mobile_sdk.engines.android.bridge_class(), in the main thread of the app or its service first; "
                f"if that fails, too, the app lacks the class ({error})"
            ) from error
        raise ProgramError(
            f"the app lacks the class org.ftte.sdk.Bridge, or the archive that it stands on: {error}; "
            f"add {JAVA_SOURCES} to android.add_src and {ANDROID_ARCHIVE} to android.gradle_dependencies"
        ) from error


class AndroidEngine(CallingEngine):
    """
    The engine of Android phones with a 64-bit system; see :class:`~mobile_sdk.engines.base.Engine`.

    ``threads`` is the size of the archive's pool.

    Raises:
        ProgramError: if there is no bridge, or ``folder`` holds no program that fits ``manifest``.

    """

    def __init__(self, folder: Path, manifest: Manifest, *, threads: int = 1) -> None:
        super().__init__(manifest)
        for call in self._calls.values():
            _check(call)
        bridge = bridge_class()
        self._bridge: Any = _java("opening the program", bridge, str(folder / PROGRAM_FILE), threads)
        # Per slot: what lies in it for good. Holding it keeps the file, and the identity, from being used again.
        self._mapped: dict[str, npt.NDArray[Any]] = {}
        self._declared: set[str] = set()
        methods = list(_java("reading the program", self._bridge.methods))
        missing = sorted(set(manifest.methods) - set(methods))
        if missing:
            self._close()
            raise ProgramError(f"the program has no method {missing[0]!r}, only {', '.join(sorted(methods)) or 'none'}")
        self.runtime = mapped_build("android")

    def _execute(self, call: Call, arguments: list[npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
        if self._bridge is None:
            raise ProgramError("the program is closed")
        # A module may drop out more than once; its masks are different.
        names = [f"{s.role}:{s.name}" + (f":{i}" if s.role in DRAWN else "") for i, s in enumerate(call.inputs)]
        for name, spec, array in zip(names, call.inputs, arguments, strict=True):
            self._fill(name, spec, array)
        count = _java(f"executing {call.method!r}", self._bridge.run, call.method, "\n".join(names))
        if count != len(call.outputs):
            raise ProgramError(
                f"manifest and program disagree: {call.method!r} has {len(call.outputs)} outputs by the manifest, "
                f"{count} really"
            )
        return [self._output(call, index) for index in range(count)]

    def _close(self) -> None:
        if self._bridge is not None:
            _java("closing the program", self._bridge.close)
            self._bridge = None
            self._mapped.clear()

    def _fill(self, name: str, spec: TensorSpec, array: npt.NDArray[Any]) -> None:
        if name not in self._declared:
            _java(f"declaring {name!r}", self._bridge.slot, name, spec.dtype, ",".join(map(str, spec.shape)))
            self._declared.add(name)
        place = located(array) if spec.role == "weight" else None
        if place is None:
            self._mapped.pop(name, None)
            _java(f"filling {name!r}", self._bridge.put, name, array.tobytes())
        elif self._mapped.get(name) is not array:
            file, offset = place
            _java(f"mapping {name!r}", self._bridge.map, name, str(file.path), offset)
            self._mapped[name] = array

    def _output(self, call: Call, index: int) -> npt.NDArray[Any]:
        spec = call.outputs[index]
        data = _java(f"reading an output of {call.method!r}", self._bridge.output, index)
        content = data.tostring()  # bytes; bytes(data) would take a hundred times as long, an element at a time
        expected = int(np.prod(spec.shape, dtype=np.int64)) * np.dtype(spec.dtype).itemsize
        if len(content) != expected:
            raise ProgramError(
                f"manifest and program disagree: {spec.role} {spec.name!r} of {call.method!r} has {expected} bytes by "
                f"the manifest, {len(content)} really"
            )
        return np.frombuffer(bytearray(content), spec.dtype).reshape(spec.shape)


def _check(call: Call) -> None:
    for spec in (*call.inputs, *call.outputs):
        if spec.dtype not in _DTYPES:
            raise ProgramError(
                f"{spec.name or spec.role!r} of {call.method!r} is {spec.dtype}, which ExecuTorch's Android archive "
                "has no tensors of: use uint8"
            )


def _java(what: str, function: Any, *arguments: Any) -> Any:
    from jnius import JavaException

    try:
        return function(*arguments)
    except JavaException as error:
        message = str(error).partition("\n")[0].removeprefix("JVM exception occurred: ")
        found = re.search(r"\[ExecuTorch Error 0x([0-9a-fA-F]+)\]", message)
        code = _ERRORS.get(int(found[1], 16)) if found else None
        raise ProgramError(f"{what} failed: {message}", code=code) from error
