"""
What a task's traced graphs follow from, as a hash that needs no tracing.

Tracing runs Python: the modules' code, the functions and constants that it names, the attributes of the model. All of
that is walked, bytecode included, so equal fingerprints mean that tracing would do the same thing to the same
shapes. Weights count by shape alone, since a program is given them, except where they are baked in.

Soundness rests on refusing, never on guessing. What the walk does not know (a foreign package, an object of C, code
that imports, reads files or looks names up at run time) has no fingerprint: the caller compares traced graphs instead.
torch, numpy and this package are known by version, which is part of every key of the cache.
"""

from __future__ import annotations

import dataclasses
import dis
import enum
import functools
import hashlib
import sys
import types
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..plan import Plan
from ..task import Task

__all__ = ["Unknown", "fingerprint"]

_BY_VERSION = ("torch", "numpy", "exporters", "mobile_sdk")
# Standard modules whose functions give the same for the same arguments.
_PURE = (
    "abc", "collections", "contextlib", "copy", "dataclasses", "enum", "functools", "itertools", "math", "numbers",
    "operator", "types", "typing", "_functools", "_operator", "_collections",
)  # fmt: skip
_IMPURE = {"__import__", "compile", "eval", "exec", "globals", "id", "input", "locals", "open", "vars"}
_PLAIN = (bool, int, float, complex, str, bytes, type(None), type(Ellipsis), torch.dtype, torch.device, torch.Size)


class Unknown(Exception):
    """The walk met something that it cannot vouch for."""


def fingerprint(task: Task, plan: Plan) -> str:
    """
    Hash of what the methods of ``plan`` follow from.

    Raises:
        Unknown: if there is something about the task that cannot be vouched for.

    """
    state = task.model.state_dict(keep_vars=True)
    walk = _Walk({id(tensor): name in plan.baked for name, tensor in state.items()})
    walk.visit((sys.version, torch.get_default_dtype(), plan.to_json(), dataclasses.astuple(task.contract)))
    walk.visit((tuple(task.moved), tuple(task.whole), tuple(task.parameter_names())))
    walk.visit((task.name, task.micro_batch, tuple(task.local), len(task.example_x)))
    walk.visit([(p.name, p.shape) for p in task.layout])
    walk.visit(task.model)
    walk.visit((task.loss, task.metrics))
    return walk.digest.hexdigest()


class _Walk:
    """Feeds a digest with everything that an object consists of; what comes again is named by its number."""

    def __init__(self, weights: dict[int, bool]) -> None:
        self.digest = hashlib.sha256()
        self.weights = weights  # id -> whether its elements are in the program
        self.seen: dict[int, int] = {}
        self.alive: list[Any] = []

    def visit(self, value: Any) -> None:
        if isinstance(value, _PLAIN):
            self._say(f"{type(value).__qualname__} {value!r}")
            return
        if id(value) in self.seen:
            self._say(f"again {self.seen[id(value)]}")
            return
        self.seen[id(value)] = len(self.seen)
        self.alive.append(value)  # an id is unique only while its object lives
        visitor = next((rule for kind, rule in _RULES if isinstance(value, kind)), _Walk._object)
        visitor(self, value)

    def _say(self, text: str | bytes) -> None:
        content = text.encode() if isinstance(text, str) else text
        self.digest.update(len(content).to_bytes(8, "little") + content)

    def _sequence(self, value: Any) -> None:
        self._say(f"{type(value).__qualname__} of {len(value)}")
        for item in value:
            self.visit(item)

    def _mapping(self, value: Any) -> None:
        self._say(f"{type(value).__qualname__} of {len(value)}")
        for key, item in value.items():
            self.visit(key)
            self.visit(item)

    def _set(self, value: Any) -> None:
        if not all(isinstance(item, str | int) for item in value):
            raise Unknown(f"a set of other things than names and numbers: {value!r}")
        self._say(f"set {sorted(map(repr, value))}")

    def _tensor(self, value: Tensor) -> None:
        self._say(f"tensor {value.dtype} {tuple(value.shape)} {value.requires_grad} {type(value).__qualname__}")
        if self.weights.get(id(value), True):
            self._say(value.detach().numpy().tobytes())

    def _constant(self, value: Tensor) -> None:
        """A tensor that is no weight: its elements are part of the graph."""
        if id(value) in self.weights:
            self._tensor(value)
            return
        self._say(f"constant {value.dtype} {tuple(value.shape)}")
        self._say(value.detach().cpu().contiguous().numpy().tobytes())

    def _array(self, value: Any) -> None:
        if value.dtype.hasobject:
            raise Unknown("an array of objects")
        self._say(f"array {value.dtype} {value.shape}")
        self._say(np.ascontiguousarray(value).tobytes())

    def _module(self, value: nn.Module) -> None:
        self.visit(type(value))
        persistent = [n for n in value._buffers if n not in value._non_persistent_buffers_set]
        for name, weight in [*value._parameters.items(), *((n, value._buffers[n]) for n in persistent)]:
            self._say(f"weight {name}")
            if weight is not None:
                self._tensor(weight)
        for name in sorted(value._non_persistent_buffers_set):
            self._say(f"constant {name}")
            self.visit(value._buffers[name])
        own = {n: v for n, v in vars(value).items() if n not in ("_parameters", "_buffers")}
        self._mapping(own)

    def _function(self, value: types.FunctionType) -> None:
        if _versioned(value.__module__):
            self._say(f"function {value.__module__}.{value.__qualname__}")
            if "<locals>" in value.__qualname__ or "<lambda>" in value.__qualname__:
                self.visit([cell.cell_contents for cell in value.__closure__ or ()])
                self._code(value.__code__, value.__globals__, trusted=True)
            return
        self._say("function")
        self._code(value.__code__, value.__globals__)
        self.visit([value.__defaults__, value.__kwdefaults__])
        try:
            self.visit([cell.cell_contents for cell in value.__closure__ or ()])
        except ValueError:
            raise Unknown(f"{value.__qualname__} closes over something that is not there yet") from None

    def _code(self, code: types.CodeType, names: dict[str, Any], trusted: bool = False) -> None:
        self._say(code.co_code)
        self._say(repr((code.co_names, code.co_varnames, code.co_freevars, code.co_flags, code.co_argcount)))
        for constant in code.co_consts:
            if isinstance(constant, types.CodeType):
                self._code(constant, names, trusted)
            else:
                self.visit(constant if not isinstance(constant, frozenset) else sorted(map(repr, constant)))
        if trusted:
            return
        for instruction in dis.get_instructions(code):
            if instruction.opname in ("IMPORT_NAME", "IMPORT_FROM", "STORE_GLOBAL", "DELETE_GLOBAL"):
                raise Unknown(f"{code.co_qualname} changes or imports names when it runs")
        for name in code.co_names:
            if name in names:
                self._say(f"global {name}")
                self.visit(names[name])
            elif name in _IMPURE:
                raise Unknown(f"{code.co_qualname} uses {name}")

    def _method(self, value: types.MethodType) -> None:
        self.visit(value.__func__)
        self.visit(value.__self__)

    def _partial(self, value: functools.partial[Any]) -> None:
        self.visit((value.func, value.args, value.keywords))

    def _builtin(self, value: Any) -> None:
        owner = value.__module__ or type(getattr(value, "__self__", None)).__module__
        if value.__name__ in _IMPURE or not (_versioned(owner) or owner in _PURE or owner == "builtins"):
            raise Unknown(f"the built-in {owner}.{value.__name__}")
        self._say(f"built-in {owner}.{value.__qualname__}")

    def _package(self, value: types.ModuleType) -> None:
        name = value.__name__
        if not (_versioned(name) or name in _PURE or name == "builtins"):
            raise Unknown(f"the package {name}")
        self._say(f"package {name}")

    def _class(self, value: type) -> None:
        for base in value.__mro__:
            self._say(f"class {base.__module__}.{base.__qualname__}")
            if _versioned(base.__module__) and "<locals>" not in base.__qualname__:
                continue
            if base.__module__ in _PURE or base.__module__ == "builtins":
                continue
            for name, member in vars(base).items():
                if name not in _CLASS_FURNITURE:
                    self._say(f"member {name}")
                    self.visit(member)

    def _wrapped(self, value: Any) -> None:
        self.visit(value.__func__)

    def _property(self, value: property) -> None:
        self.visit([value.fget, value.fset, value.fdel])

    def _enum(self, value: enum.Enum) -> None:
        self._say(f"enum {type(value).__module__}.{type(value).__qualname__}.{value.name} {value.value!r}")

    def _operator(self, value: Any) -> None:
        self._say(f"operator {value}")

    def _object(self, value: Any) -> None:
        kind = type(value)
        foreign = kind.__module__.partition(".")[0] in sys.stdlib_module_names
        if foreign or not hasattr(value, "__dict__") or not (dataclasses.is_dataclass(value) or callable(value)):
            raise Unknown(f"an object of the type {kind.__module__}.{kind.__qualname__}")
        self.visit(kind)
        self._mapping(vars(value))


def _versioned(module: str | None) -> bool:
    return (module or "").partition(".")[0] in _BY_VERSION


_CLASS_FURNITURE = {
    "__dict__", "__doc__", "__module__", "__weakref__", "__annotations__", "__abstractmethods__", "_abc_impl",
}  # fmt: skip
_Rule = Callable[[_Walk, Any], None]
_RULES: list[tuple[Any, _Rule]] = [
    (nn.Module, _Walk._module),
    (Tensor, _Walk._constant),
    (np.ndarray, _Walk._array),
    (enum.Enum, _Walk._enum),
    (dict, _Walk._mapping),
    (types.MappingProxyType, _Walk._mapping),
    (list | tuple, _Walk._sequence),
    (set | frozenset, _Walk._set),
    (type, _Walk._class),
    (types.FunctionType, _Walk._function),
    (types.MethodType, _Walk._method),
    (functools.partial, _Walk._partial),
    (types.BuiltinFunctionType | types.MethodDescriptorType | types.WrapperDescriptorType, _Walk._builtin),
    (types.ModuleType, _Walk._package),
    (staticmethod | classmethod, _Walk._wrapped),
    (property, _Walk._property),
    (weakref.ReferenceType, lambda walk, value: walk.visit(value())),
    (torch._ops.OpOverload | torch._ops.OpOverloadPacket, _Walk._operator),
]
