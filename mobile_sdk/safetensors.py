"""
Read and write safetensors files with numpy alone.

The format (https://github.com/huggingface/safetensors) is eight bytes of header length, a JSON header of
names, dtypes, shapes and offsets, and the raw little-endian arrays. Reading is strict, since the bytes
come from a peer: offsets must tile the data exactly, as the reference implementation demands.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterable, Mapping
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from .errors import PayloadError

__all__ = ["dumps", "loads", "write"]

_NAMES: dict[str, np.dtype[Any]] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("bool"),
}
_DTYPES: dict[np.dtype[Any], str] = {dtype: name for name, dtype in _NAMES.items()}

# As in the reference implementation: a header beyond this is an attack or an accident.
MAX_HEADER_BYTES = 100_000_000


def dumps(arrays: Mapping[str, npt.NDArray[Any]], metadata: Mapping[str, str] | None = None) -> bytes:
    """
    The bytes of a safetensors file.

    Arrays keep the order of the mapping; equal input gives equal bytes, so files can be
    addressed by content.

    Raises:
        PayloadError: if an array has a dtype that the format does not know.

    """
    output = io.BytesIO()
    entries = [(name, array.dtype, array.shape) for name, array in arrays.items()]
    write(output, entries, arrays.values(), metadata)
    return output.getvalue()


def write(
    output: IO[bytes],
    entries: Iterable[tuple[str, np.dtype[Any], tuple[int, ...]]],
    arrays: Iterable[npt.NDArray[Any]],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """
    Write a safetensors file, one array at a time.

    Args:
        output: where to.
        entries: names, dtypes and shapes.
        arrays: the arrays that they announce, in the same order.
        metadata: further text.

    Raises:
        PayloadError: if an array has a dtype that the format does not know.

    """
    header: dict[str, Any] = {}
    if metadata:
        header["__metadata__"] = dict(sorted(metadata.items()))
    dtypes = []
    offset = 0
    for name, given, shape in entries:
        dtype = given.newbyteorder("<")
        if dtype not in _DTYPES:
            raise PayloadError(f"{name!r} has the dtype {given}, which safetensors does not know")
        end = offset + dtype.itemsize * math.prod(shape)
        header[name] = {"dtype": _DTYPES[dtype], "shape": list(shape), "data_offsets": [offset, end]}
        dtypes.append(dtype)
        offset = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # keeps the arrays aligned
    output.write(len(text).to_bytes(8, "little") + text)
    for array, dtype in zip(arrays, dtypes, strict=True):
        output.write(np.ascontiguousarray(array, dtype).tobytes())


def loads(content: bytes | memoryview) -> tuple[dict[str, npt.NDArray[Any]], dict[str, str]]:
    """
    Arrays and metadata of a safetensors file; the arrays are read-only views into ``content``.

    Raises:
        PayloadError: if ``content`` is not exactly one well-formed file.

    """
    if len(content) < 8:
        raise PayloadError(f"not a safetensors file: {len(content)} bytes")
    length = int.from_bytes(content[:8], "little")
    if length > min(len(content) - 8, MAX_HEADER_BYTES):
        raise PayloadError(f"not a safetensors file: the header claims {length} bytes of {len(content)}")
    try:
        header = json.loads(bytes(content[8 : 8 + length]))
        metadata = {str(k): str(v) for k, v in header.pop("__metadata__", {}).items()}
        entries = [_entry(name, item) for name, item in header.items()]
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise PayloadError(f"not a safetensors file: bad header: {error}") from error
    data = memoryview(content)[8 + length :]
    arrays = {}
    end = 0
    for name, dtype, shape, start, stop in sorted(entries, key=lambda entry: entry[3:]):
        if start != end or stop - start != math.prod(shape) * dtype.itemsize or stop > len(data):
            raise PayloadError(f"not a safetensors file: {name!r} does not lie where its header says")
        try:
            arrays[name] = np.frombuffer(data[start:stop], dtype).reshape(shape)
        except ValueError as error:  # more axes than numpy knows, or a size that overflows
            raise PayloadError(f"not a safetensors file: {name!r} has an impossible shape") from error
        end = stop
    if end != len(data):
        raise PayloadError(f"not a safetensors file: {len(data) - end} bytes belong to no array")
    return {name: arrays[name] for name in header}, metadata


def _entry(name: str, item: Any) -> tuple[str, np.dtype[Any], tuple[int, ...], int, int]:
    start, stop = item["data_offsets"]
    numbers = (*item["shape"], start, stop)
    if any(not isinstance(n, int) or isinstance(n, bool) or n < 0 for n in numbers):
        raise ValueError(f"{name!r} has a negative or fractional number")
    return name, _NAMES[item["dtype"]], tuple(item["shape"]), start, stop
