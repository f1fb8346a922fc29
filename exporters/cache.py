"""
Exports that were made before, by content.

Lowering and emitting take most of an export, and depend on nothing but the traced graphs: tracing is cheap, so the
graphs themselves are the key, together with the versions of everything that turns them into a program. A key
that guesses (from a model's source text, say) would some day serve the wrong program; this one cannot.

Files lie under ``$XDG_CACHE_HOME/ftte`` (``~/.cache/ftte``), each starting with the hash of its content, so a damaged
one is a miss. A folder that cannot be written means that nothing is kept.
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

from .lowering.registry import REWRITES

__all__ = ["folder", "graphs_key", "key", "load", "store"]

_DIGEST = hashlib.sha256().digest_size
# The oldest go when there are more: some 100 MB.
_KEPT = 512


def folder() -> Path:
    """Where the files lie."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ftte" / "exports"


def key(*parts: bytes | str) -> str:
    """A name for what follows from ``parts`` in this version of the exporter and the runtime."""
    digest = hashlib.sha256(_version())
    for part in parts:
        content = part.encode() if isinstance(part, str) else part
        digest.update(len(content).to_bytes(8, "little"))
        digest.update(content)
    return digest.hexdigest()


def graphs_key(graphs: Mapping[str, tuple[fx.GraphModule, Sequence[Tensor]]], plan: str = "") -> str:
    """The key of the program of several methods: their traced graphs, constants and inputs, the rewrites, the plan."""
    parts: list[bytes | str] = [plan, *(f"{op}: {_name(rewrite)}" for op, rewrite in REWRITES.items())]
    for name, (graph, inputs) in graphs.items():
        parts += [name, graph.code, *(f"{t.dtype} {tuple(t.shape)}" for t in inputs)]
        for node in graph.graph.nodes:
            if node.op == "get_attr":
                constant = getattr(graph, node.target)
                parts += [f"{node.target} {constant.dtype} {tuple(constant.shape)}", constant.numpy().tobytes()]
    return key(*parts)


def load(name: str) -> bytes | None:
    """The content kept as ``name``, or :obj:`None`."""
    try:
        kept = (folder() / name).read_bytes()
    except OSError:
        return None
    content = kept[_DIGEST:]
    return content if hashlib.sha256(content).digest() == kept[:_DIGEST] else None


def store(name: str, content: bytes) -> None:
    """Keep ``content`` as ``name``, where the folder allows it; other processes see all of it or nothing."""
    with contextlib.suppress(OSError):  # a cache may be missing
        folder().mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder(), delete=False) as file:
            file.write(hashlib.sha256(content).digest() + content)
        Path(file.name).replace(folder() / name)
        files = sorted(folder().iterdir(), key=lambda path: path.stat().st_mtime)
        for path in files[:-_KEPT]:
            path.unlink()


def _name(rewrite: object) -> str:
    inner = rewrite.func if isinstance(rewrite, functools.partial) else rewrite
    return f"{getattr(inner, '__module__', '')}.{getattr(inner, '__qualname__', repr(inner))}"


@functools.cache
def _version() -> bytes:
    """Hash of our sources, the native runtime, and the versions of what both stand on."""
    digest = hashlib.sha256(f"{torch.__version__} {EXECUTORCH_VERSION} {np.__version__}".encode())
    for package in (Path(__file__).parent, Path(str(mobile_sdk.__file__)).parent):
        for path in sorted(package.rglob("*.py")):
            digest.update(f"{path.relative_to(package)} {path.stat().st_size} ".encode() + path.read_bytes())
    if LIBRARY.exists():
        digest.update(LIBRARY.read_bytes())
    return digest.digest()
