"""
Read and write safetensors files with numpy alone.

The format (https://github.com/huggingface/safetensors) is eight bytes of header length, a JSON header of
names, dtypes, shapes and offsets, and the raw little-endian arrays. Reading is strict, since the bytes
come from a peer: offsets must tile the data exactly, as the reference implementation demands.
"""

from __future__ import annotations

import functools
import io
import json
import math
from collections.abc import Iterable, Mapping
from typing import IO, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .errors import PayloadError

__all__ = ["Entry", "dumps", "loads", "parse_header", "pieces", "write_header"]

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

# Updates of one program have the same header: of those up to this length, the newest are remembered.
REMEMBERED_BYTES, REMEMBERED = 16_384, 32

# Numpy's limit. A header of a megabyte could otherwise name a shape whose size takes minutes to multiply out.
MAX_AXES = 64


class Entry(NamedTuple):
    """An array of a file: its name, dtype and shape, and where its bytes begin and end after the header."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    start: int
    stop: int


def dumps(arrays: Mapping[str, npt.NDArray[Any]], metadata: Mapping[str, str] | None = None) -> bytes:
    """
    The bytes of a safetensors file.

    Arrays keep the order of the mapping; equal input gives equal bytes, so files can be
    addressed by content.

    Args:
        arrays: name -> array of any shape; float, integer or bool.
        metadata: texts for the header.

    Raises:
        PayloadError: if an array has a dtype that the format does not know.

    """
    return b"".join(pieces(arrays, metadata))


def pieces(
    arrays: Mapping[str, npt.NDArray[Any]], metadata: Mapping[str, str] | None = None
) -> list[bytes | memoryview]:
    """
    What :func:`dumps` joins: the header, and the arrays where they lie, without a copy of them.

    Args:
        arrays: name -> array of any shape; float, integer or bool.
        metadata: texts for the header.

    Raises:
        PayloadError: if an array has a dtype that the format does not know.

    """
    output = io.BytesIO()
    dtypes = write_header(output, [(name, array.dtype, array.shape) for name, array in arrays.items()], metadata)
    found: list[bytes | memoryview] = [output.getvalue()]
    for array, dtype in zip(arrays.values(), dtypes, strict=True):
        flat = np.ascontiguousarray(array, dtype).reshape(-1)
        found.append(flat.view(np.uint8).data)
    return found


def write_header(
    output: IO[bytes],
    entries: Iterable[tuple[str, np.dtype[Any], tuple[int, ...]]],
    metadata: Mapping[str, str] | None = None,
) -> list[np.dtype[Any]]:
    """
    The beginning of a file, for whoever writes the arrays' bytes behind it; the dtypes as they are to be written.

    Args:
        output: where the header goes.
        entries: name, dtype and shape of each array, in the order of the file.
        metadata: texts for the header.

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
    return dtypes


def loads(content: bytes | memoryview) -> tuple[dict[str, npt.NDArray[Any]], dict[str, str]]:
    """
    Arrays and metadata of a safetensors file; the arrays are read-only views into ``content``.

    Returns:
        Name -> array in the file's shape and dtype; metadata.

    Raises:
        PayloadError: if ``content`` is not exactly one well-formed file.

    """
    if len(content) < 8:
        raise PayloadError(f"not a safetensors file: {len(content)} bytes")
    length = int.from_bytes(content[:8], "little")
    if length > min(len(content) - 8, MAX_HEADER_BYTES):
        raise PayloadError(f"not a safetensors file: the header claims {length} bytes of {len(content)}")
    parse = _remembered_header if length <= REMEMBERED_BYTES else parse_header
    entries, metadata = parse(bytes(content[8 : 8 + length]))
    data = memoryview(content)[8 + length :]
    end = entries[-1].stop if entries else 0
    if end != len(data):
        raise PayloadError(f"not a safetensors file: its arrays have {end} bytes, {len(data)} are there")
    arrays = {}
    for entry in entries:
        try:
            arrays[entry.name] = np.frombuffer(data[entry.start : entry.stop], entry.dtype).reshape(entry.shape)
        except ValueError as error:  # more axes than numpy knows, or a size that overflows
            raise PayloadError(f"not a safetensors file: {entry.name!r} has an impossible shape") from error
    return arrays, dict(metadata)


def parse_header(text: bytes) -> tuple[list[Entry], dict[str, str]]:
    """
    The arrays that a file's header announces, in the order of their bytes, which they tile, and its metadata.

    Raises:
        PayloadError: if it is no such header.

    """
    try:
        header = json.loads(text)
        metadata = {str(k): str(v) for k, v in header.pop("__metadata__", {}).items()}
        entries = [_entry(name, item) for name, item in header.items()]
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise PayloadError(f"not a safetensors file: bad header: {error}") from error
    entries.sort(key=lambda entry: (entry.start, entry.stop))
    end = 0
    for entry in entries:
        if entry.start != end or entry.stop - entry.start != math.prod(entry.shape) * entry.dtype.itemsize:
            raise PayloadError(f"not a safetensors file: {entry.name!r} does not lie where its header says")
        end = entry.stop
    return entries, metadata


# What it gives is not to be changed.
_remembered_header = functools.lru_cache(REMEMBERED)(parse_header)


def _entry(name: str, item: Any) -> Entry:
    start, stop = item["data_offsets"]
    shape = item["shape"]
    if not isinstance(shape, list) or len(shape) > MAX_AXES:
        raise ValueError(f"{name!r} has no list of at most {MAX_AXES} axes")
    if any(not isinstance(n, int) or isinstance(n, bool) or not 0 <= n < 2**63 for n in (*shape, start, stop)):
        raise ValueError(f"{name!r} has a number that is negative, fractional or of more than 63 bits")
    return Entry(name, _NAMES[item["dtype"]], tuple(shape), start, stop)
