"""
Exports that were made before, by content.

Two keys lead to a program. The first needs no tracing: the fingerprint of everything that tracing would run
(:mod:`exporters.cache.fingerprint`), which is refused rather than guessed where something is not known. The second is
the traced graphs themselves. Both are taken together with the versions of everything that turns graphs into a program:
the sources of exporter and SDK, the native runtime, torch, ExecuTorch and numpy.

A wrong program would need two different steps with one key. Under the second key that is a collision of SHA-256, since
a graph with its constants is all that lowering sees. Under the first, tracing would have to depend on something that
the walk neither saw nor refused: it follows bytecode, closures, globals, attributes, constant tensors, and stops at
code that imports, evaluates text, reads files, or comes from packages whose version is no part of the key. What
remains is a process that patches torch itself; such a process passes ``cached=False``.

Files lie under ``$XDG_CACHE_HOME/ftte`` (``~/.cache/ftte``), each starting with the hash of its content, so a damaged
one is a miss. They are written aside and renamed, so other processes see all of one or nothing. The files used longest
ago go when there are more than 256 MB. A folder that cannot be written means that nothing is kept.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, fx

import mobile_sdk
from mobile_sdk.manifest import EXECUTORCH_VERSION
from mobile_sdk.native.library import LIBRARY

from ..location import PACKAGE_FOLDER
from ..lowering.registry import REWRITES

__all__ = ["folder", "graphs_key", "key", "load", "store"]

_DIGEST = hashlib.sha256().digest_size
_LARGEST = 256_000_000
# Folders of the exporter that choose plans: a plan is a part of every key, and how it was chosen changes no program.
_CHOOSING = ("importance", "search")


def folder() -> Path:
    """Where the files lie."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ftte" / "exports"


def key(*parts: bytes | str) -> str:
    """A name for what follows from ``parts`` in this version of the exporter and the runtime."""
    digest = hashlib.sha256(_version())
    # Rewrites may come from elsewhere, and be exchanged while a process runs.
    for part in (*(f"{op}: {_name(rewrite)}" for op, rewrite in REWRITES.items()), *parts):
        content = part.encode() if isinstance(part, str) else part
        digest.update(len(content).to_bytes(8, "little"))
        digest.update(content)
    return digest.hexdigest()


def graphs_key(graphs: Mapping[str, tuple[fx.GraphModule, Sequence[Tensor]]], plan: str = "") -> str:
    """
    The key of the program of several methods: their traced graphs, constants and inputs, and the plan.

    Args:
        graphs: method -> its traced graph, and example inputs of any shapes and dtypes.
        plan: what else the program follows from.

    """
    parts: list[bytes | str] = [plan]
    for name, (graph, inputs) in graphs.items():
        parts += [name, graph.code, *(f"{t.dtype} {tuple(t.shape)}" for t in inputs)]
        for node in graph.graph.nodes:
            if node.op == "get_attr":
                constant = getattr(graph, node.target)
                parts += [f"{node.target} {constant.dtype} {tuple(constant.shape)}", constant.numpy().tobytes()]
    return key(*parts)


def load(name: str) -> bytes | None:
    """The content kept as ``name``, or :obj:`None`."""
    path = folder() / name
    try:
        kept = path.read_bytes()
    except OSError:
        return None
    content = kept[_DIGEST:]
    if hashlib.sha256(content).digest() != kept[:_DIGEST]:
        return None
    with contextlib.suppress(OSError):
        os.utime(path)  # the least recently used go first
    return content


def store(name: str, content: bytes) -> None:
    """Keep ``content`` as ``name``, where the folder allows it; other processes see all of it or nothing."""
    with contextlib.suppress(OSError):  # a cache may be missing
        folder().mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder(), delete=False) as file:
            file.write(hashlib.sha256(content).digest() + content)
        Path(file.name).replace(folder() / name)
        _trim()


def _trim() -> None:
    """Remove what was used longest ago, among it what interrupted processes left behind."""
    files = sorted(((path.stat(), path) for path in folder().iterdir()), key=lambda f: f[0].st_mtime, reverse=True)
    total = 0
    for status, path in files:
        total += status.st_size
        if total > _LARGEST:
            path.unlink(missing_ok=True)


def _name(rewrite: object) -> str:
    inner = rewrite.func if isinstance(rewrite, functools.partial) else rewrite
    code = getattr(inner, "__code__", None)
    return (
        f"{getattr(inner, '__module__', '')}.{getattr(inner, '__qualname__', repr(inner))} "
        f"{code.co_code.hex() if code else ''}"
    )


def sources_key(package: Path, *, without: Sequence[str] = ()) -> bytes:
    """SHA-256 of the names and contents of a package's Python files, except those of its subfolders ``without``."""
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        name = path.relative_to(package)
        if name.parts[0] not in without:
            digest.update(f"{name} {path.stat().st_size} ".encode() + path.read_bytes())
    return digest.digest()


@functools.cache
def _version() -> bytes:
    """Hash of our sources, the native runtime, and the versions of what both stand on."""
    digest = hashlib.sha256(f"{torch.__version__} {EXECUTORCH_VERSION} {np.__version__}".encode())
    digest.update(sources_key(PACKAGE_FOLDER, without=_CHOOSING))
    digest.update(sources_key(Path(str(mobile_sdk.__file__)).parent))
    if LIBRARY.exists():
        digest.update(LIBRARY.read_bytes())
    return digest.digest()
