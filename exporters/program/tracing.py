"""Trace a step into one graph of ATen operators, each tagged with the module of the model that it comes from."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx import traceback
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from ..errors import ExportError
from ..lowering import FORWARD, MODULE
from ..lowering.lower import decompositions
from ..lowering.passes.functional import fold_constants, functional
from ..lowering.refusals import packed, untraceable

__all__ = ["named_modules", "trace"]


def trace(function: Callable[..., Any], model: nn.Module, inputs: Sequence[Tensor]) -> fx.GraphModule:
    """
    The graph of ``function(*inputs)``, backward pass included.

    ``node.meta["custom"][MODULE]`` of each node names the module of ``model`` that it belongs to, or "" for
    what lies outside the model.

    Args:
        function: of tensors; may ask autograd for gradients.
        model: whose modules it runs.
        inputs: example inputs; the graph is for their shapes and dtypes.

    """
    # Fused attention is one operator that nothing here could take apart; the plain one is products and a softmax.
    plain = sdpa_kernel(SDPBackend.MATH)
    with _unfused(), plain, _unchanged(model), traceback.preserve_node_meta(), named_modules(model), _TagBackward():
        _enter("")
        # On fake tensors: without oneDNN, computing a depthwise convolution for real would take seconds.
        tracer = make_fx(
            _in_words(function), decomposition_table=decompositions(), tracing_mode="fake", _allow_non_fake_inputs=True
        )
        graph = tracer(*inputs)
    graph.graph.eliminate_dead_code()
    _detach_constants(graph)
    graph = functional(graph, inputs, decompositions(), _enter_like)
    fold_constants(graph)
    return graph


def _detach_constants(graph: fx.GraphModule) -> None:
    """Parameters that the model uses and has not registered are never trained, here or in torch."""
    for name in {str(node.target) for node in graph.graph.nodes if node.op == "get_attr"}:
        constant = getattr(graph, name)
        if isinstance(constant, Tensor) and constant.requires_grad:
            delattr(graph, name)
            graph.register_buffer(name, constant.detach(), persistent=False)


def _in_words(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function; what is raised in it, one sentence that names the module."""

    def run(*inputs: Tensor) -> Any:
        try:
            return function(*inputs)
        except ExportError:
            raise
        except Exception as error:
            module = str(traceback.current_meta.get("custom", {}).get(MODULE, ""))
            raise ExportError(untraceable(error, module)) from error

    return run


@contextlib.contextmanager
def _unfused() -> Iterator[None]:
    """Without oneDNN, whose fused recurrent layers are one operator too."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "TF32 acceleration")  # torch warns of it when it is told anything of oneDNN
        with torch.backends.mkldnn.flags(enabled=False):
            yield


@contextlib.contextmanager
def _unchanged(model: nn.Module) -> Iterator[None]:
    """Recurrent modules keep a second list of their weights, in which fake ones would stay."""
    kept = [(module, list(module._flat_weights)) for module in model.modules() if isinstance(module, nn.RNNBase)]
    try:
        yield
    finally:
        for module, weights in kept:
            module._flat_weights = weights


def _enter_like(node: fx.Node) -> None:
    traceback.current_meta["custom"] = node.meta.get("custom", {MODULE: ""})


def _enter(name: str) -> None:
    traceback.current_meta["custom"] = {MODULE: name}


@contextlib.contextmanager
def named_modules(model: nn.Module) -> Iterator[None]:
    """
    Note the innermost module whose forward is running.

    Raises:
        ExportError: if a module is given packed sequences, which cannot be traced.

    """
    stack: list[str] = []
    handles = []

    def enter(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any) -> None:
            stack.append(name)
            _enter(name)
            if any(isinstance(arg, nn.utils.rnn.PackedSequence) for arg in args):
                raise ExportError(packed(name))

        return hook

    def leave(module: nn.Module, args: Any, output: Any) -> None:
        stack.pop()
        _enter(stack[-1] if stack else "")

    for path, module in model.named_modules():
        name = path or FORWARD
        handles += [module.register_forward_pre_hook(enter(name)), module.register_forward_hook(leave)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _TagBackward(TorchFunctionMode):
    """Note the same module again when autograd comes to what it computed."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        meta = traceback.current_meta.get("custom", {MODULE: ""})
        for output in result if isinstance(result, tuple) else (result,):
            if isinstance(output, torch.Tensor) and output.grad_fn is not None:
                output.grad_fn.register_prehook(lambda _, meta=meta: _enter(meta[MODULE]))
        return result
