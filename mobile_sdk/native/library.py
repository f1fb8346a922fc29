"""
The native runtime's C ABI as Python: one :class:`NativeProgram` per open file.

Everything about ctypes is here; errors of ExecuTorch become :exc:`ProgramError` with its name of the
error. ctypes lets go of the interpreter lock during a call.
"""

from __future__ import annotations

import ctypes
import dataclasses
import functools
import math
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import ProgramError
from ..manifest import EXECUTORCH_VERSION

__all__ = ["NativeProgram", "TensorMeta", "set_threads", "threads"]

# A build makes one of them: a .dylib on macOS. Without a build, it is the name for Linux that is missing.
LIBRARY = next(
    (path for path in sorted(Path(__file__).with_name("lib").glob("libftte_runtime.*")) if path.suffix != ".new"),
    Path(__file__).with_name("lib") / "libftte_runtime.so",
)
ABI = 4
MAX_RANK = 16

# c10::ScalarType's numbers of the dtypes that a manifest may name.
_DTYPES = {0: "uint8", 3: "int32", 4: "int64", 6: "float32", 11: "bool"}


class _Method(ctypes.Structure):
    _fields_ = [("inputs", ctypes.c_uint64), ("outputs", ctypes.c_uint64), ("planned_bytes", ctypes.c_uint64)]


class _Tensor(ctypes.Structure):
    _fields_ = [
        ("dtype", ctypes.c_int32),
        ("rank", ctypes.c_int32),
        ("planned", ctypes.c_int32),
        ("sizes", ctypes.c_int32 * MAX_RANK),
        ("bytes", ctypes.c_uint64),
    ]


@dataclasses.dataclass(frozen=True)
class TensorMeta:
    """An input or output as the program itself describes it; ``planned`` ones are copied, others used in place."""

    shape: tuple[int, ...]
    dtype: str
    planned: bool


@functools.cache
def _library() -> ctypes.CDLL:
    """
    The loaded library, its functions typed.

    Raises:
        ProgramError: if it is missing, does not load, or was built for other sources.

    """
    if not LIBRARY.exists():
        raise ProgramError(
            f"the native runtime is not built: {LIBRARY} is missing; in a checkout run `make native`, "
            'or choose the engine "interpreted"'
        )
    try:
        library = ctypes.CDLL(str(LIBRARY))
    except OSError as error:
        raise ProgramError(f"the native runtime does not load: {error}; run `make native`") from error
    library.ftte_abi.restype = ctypes.c_uint32
    library.ftte_runtime_version.restype = ctypes.c_char_p
    abi, version = int(library.ftte_abi()), library.ftte_runtime_version().decode()
    if (abi, version) != (ABI, EXECUTORCH_VERSION):
        raise ProgramError(
            f"the native runtime has ABI {abi} and ExecuTorch {version}, "
            f"not {ABI} and {EXECUTORCH_VERSION}; run `make native`"
        )
    library.ftte_error_name.argtypes = [ctypes.c_uint32]
    library.ftte_error_name.restype = ctypes.c_char_p
    library.ftte_last_error.restype = ctypes.c_char_p
    handle, name, counts = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t
    pointers, sizes = ctypes.POINTER(ctypes.c_void_p), ctypes.POINTER(ctypes.c_uint64)
    for function, arguments in {
        "set_threads": [ctypes.c_uint32],
        "threads": [],
        "open": [ctypes.c_char_p, ctypes.POINTER(ctypes.c_void_p)],
        "method_meta": [handle, name, ctypes.POINTER(_Method)],
        "input_meta": [handle, name, counts, ctypes.POINTER(_Tensor)],
        "output_meta": [handle, name, counts, ctypes.POINTER(_Tensor)],
        "load": [handle, name],
        "unload": [handle, name],
        "execute": [handle, name, counts, pointers, sizes, counts, pointers, sizes],
        "output": [handle, name, counts, ctypes.POINTER(ctypes.c_void_p)],
    }.items():
        getattr(library, f"ftte_{function}").argtypes = arguments
        getattr(library, f"ftte_{function}").restype = ctypes.c_uint32
    for function in ("ftte_close", "ftte_free"):
        getattr(library, function).argtypes = [handle]
        getattr(library, function).restype = None
    return library


def _call(what: str, function: str, *arguments: Any) -> None:
    library = _library()
    code = getattr(library, f"ftte_{function}")(*arguments)
    if code:
        name = library.ftte_error_name(code).decode()
        text = library.ftte_last_error().decode(errors="replace")
        raise ProgramError(f"{what} failed with {name}" + (f": {text}" if text else ""), code=name)


def set_threads(count: int) -> None:
    """
    Let all programs of this process share ``count`` threads; 1 at first.

    With more than 1, ExecuTorch's pool is resized: do it before anything else in the process, such as
    ExecuTorch's own Python bindings, loads a program. With 1 the pool is left alone.

    Raises:
        ProgramError: if ``count`` is below 1, or differs from now while a program is open.

    """
    if count < 1:
        raise ProgramError(f"threads must be at least 1, not {count}")
    _call(f"setting the number of threads to {count}", "set_threads", count)


def threads() -> int:
    """How many threads the programs of this process share."""
    return int(_library().ftte_threads())


class _Handle:
    """Frees the arena when neither the :class:`NativeProgram` nor an output in the arena refers to it any more."""

    def __init__(self, pointer: ctypes.c_void_p) -> None:
        self.pointer = pointer
        weakref.finalize(self, _library().ftte_free, pointer)


class NativeProgram:
    """
    A mapped ``.pte`` file.

    Calls on one program must not overlap. Freed by :meth:`close` or with the object; the arena goes with the last
    of the arrays that :meth:`output` gave.

    Raises:
        ProgramError: if the file cannot be read or is no program.

    """

    def __init__(self, path: Path) -> None:
        self.path = path
        pointer = ctypes.c_void_p()
        _call(f"opening {path}", "open", str(path).encode(), ctypes.byref(pointer))
        self._handle: _Handle | None = _Handle(pointer)

    def close(self) -> None:
        """Unmap the file and free every method; more than once is fine."""
        if self._handle is not None:
            _library().ftte_close(self._handle.pointer)
            self._handle = None

    def metadata(self, method: str) -> tuple[tuple[TensorMeta, ...], tuple[TensorMeta, ...], int]:
        """
        Inputs, outputs and planned bytes of ``method``; loads nothing.

        Raises:
            ProgramError: if the program has no such method, or one that takes more than contiguous tensors.

        """
        meta = _Method()
        self._do("reading", method, "method_meta", ctypes.byref(meta))
        inputs = tuple(self._tensor(method, "input", i) for i in range(meta.inputs))
        outputs = tuple(self._tensor(method, "output", i) for i in range(meta.outputs))
        return inputs, outputs, meta.planned_bytes

    def _tensor(self, method: str, kind: str, index: int) -> TensorMeta:
        meta = _Tensor()
        self._do(f"reading {kind} {index} of", method, f"{kind}_meta", index, ctypes.byref(meta))
        dtype = _DTYPES.get(meta.dtype, f"ScalarType {meta.dtype}")
        return TensorMeta(tuple(meta.sizes[: meta.rank]), dtype, bool(meta.planned))

    def load(self, method: str) -> None:
        """Prepare ``method`` for execution, which would otherwise do it the first time."""
        self._do("loading", method, "load")

    def unload(self, method: str) -> None:
        """Free what ``method`` holds; its next execution loads it again."""
        self._do("unloading", method, "unload")

    def output(self, method: str, index: int) -> npt.NDArray[Any] | None:
        """
        An output of ``method`` where it lies in the arena, or :obj:`None` if it lies elsewhere.

        The array is overwritten by the next execution of any method. It outlives the program.

        Args:
            method: the name of a method.
            index: of the output.

        Returns:
            In the shape and dtype that the program says.

        """
        meta = self._tensor(method, "output", index)
        pointer = ctypes.c_void_p()
        self._do("finding an output of", method, "output", index, ctypes.byref(pointer))
        if not pointer.value:
            return None
        dtype = np.dtype(meta.dtype)
        memory = (ctypes.c_char * (math.prod(meta.shape) * dtype.itemsize)).from_address(pointer.value)
        memory.owner = self._handle  # type: ignore[attr-defined]
        return np.frombuffer(memoryview(memory), dtype).reshape(meta.shape)

    def execute(
        self, method: str, inputs: Sequence[npt.NDArray[Any]], outputs: Sequence[npt.NDArray[Any] | None]
    ) -> None:
        """
        Run ``method``: C-contiguous ``inputs`` are read in place, C-contiguous writable ``outputs`` are filled.

        An output given as :obj:`None` stays in the arena, where :meth:`output` finds it.

        Args:
            method: its name in the program.
            inputs: one per input, of the shape and dtype that :meth:`metadata` gives.
            outputs: one per output, likewise, or :obj:`None`.

        Raises:
            ProgramError: if their number or sizes in bytes are not the program's, or ExecuTorch fails.

        """
        self._do("executing", method, "execute", *_pointers(inputs), *_pointers(outputs))

    def _do(self, what: str, method: str, function: str, *arguments: Any) -> None:
        if self._handle is None:
            raise ProgramError(f"{self.path} is closed")
        _call(f"{what} {method!r}", function, self._handle.pointer, method.encode(), *arguments)


def _pointers(arrays: Sequence[npt.NDArray[Any] | None]) -> tuple[int, Any, Any]:
    count = len(arrays)
    data = (ctypes.c_void_p * count)(*(None if array is None else array.ctypes.data for array in arrays))
    sizes = (ctypes.c_uint64 * count)(*(0 if array is None else array.nbytes for array in arrays))
    return count, data, sizes
