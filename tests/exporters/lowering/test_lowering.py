"""Every rewrite computes what the operator that it replaces computes, and what has none is refused by name."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from exporters import ExportError, Plan, Task, export
from exporters.lowering.lower import lower
from exporters.lowering.registry import REWRITES
from exporters.program.step import Step
from exporters.program.tracing import trace
from exporters.program.verify import TOLERANCE, relative_errors
from tests.exporters.export_tasks import error_of, per_sample, task_of, tiny_task


class Head(nn.Module):
    """Any feature map to three logits, without parameters of its own."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        flat = x.flatten(1)
        pattern = torch.sin(torch.arange(flat.shape[1] * 3, dtype=x.dtype)).reshape(-1, 3)
        return flat @ pattern * 0.1


def lowering_errors(task: Task) -> dict[str, float]:
    """Errors of the lowered training step, run in torch itself, against float64."""
    step = Step(task, Plan.everything(task))
    state = task.model.state_dict()
    weights = [state[n].detach() for n in step.order]
    sample_weight = torch.linspace(0, 2, len(task.example_x))
    inputs = [task.example_x, task.example_y, sample_weight, *weights]
    lowered = lower(trace(step.train_step, task.model, inputs), inputs)
    doubles = [t.double() if t.is_floating_point() else t for t in inputs]
    expected = step.in_float64().train_step(*doubles)
    names = ["loss", *task.metrics, *step.trained]
    actual = lowered(*inputs)
    return relative_errors(
        {n: t.numpy() for n, t in zip(names, actual, strict=True)},
        {n: t.numpy() for n, t in zip(names, expected, strict=True)},
    )


def before(*layers: nn.Module) -> nn.Sequential:
    """The layers between a convolution, whose gradient passes through them, and a head."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 4, 1), *layers, nn.Flatten(), nn.LazyLinear(3))


LAYERS = {
    "3x3": nn.Conv2d(4, 5, 3),
    "padded": nn.Conv2d(4, 5, 3, padding=1),
    "without bias": nn.Conv2d(4, 5, 3, bias=False),
    "stride 2": nn.Conv2d(4, 5, 3, stride=2, padding=1),
    "stride beyond the kernel": nn.Conv2d(4, 5, 2, stride=3),
    "stride with a rest": nn.Conv2d(4, 5, 2, stride=4),
    "oblong": nn.Conv2d(4, 5, (1, 3), stride=(2, 1), padding=(0, 1)),
    "padding beyond the kernel": nn.Conv2d(4, 5, 1, padding=2),
    "dilated": nn.Conv2d(4, 5, 3, dilation=2, padding=2),
    "5x5": nn.Conv2d(4, 5, 5, padding=2),
    "depthwise": nn.Conv2d(4, 4, 3, padding=1, groups=4),
    "depthwise with stride": nn.Conv2d(4, 4, 3, stride=2, padding=1, groups=4),
    "max pool": nn.MaxPool2d(2),
    "overlapping max pool": nn.MaxPool2d(3, stride=2, padding=1),
    "max pool with a rest": nn.MaxPool2d(4),
    "average pool": nn.AvgPool2d(2),
    "overlapping average pool": nn.AvgPool2d(3, stride=2, padding=1),
    "global average pool": nn.AdaptiveAvgPool2d(1),
    "adaptive average pool": nn.AdaptiveAvgPool2d(3),
    "group norm": nn.GroupNorm(2, 4),
    "group norm without affine": nn.GroupNorm(2, 4, affine=False),
    "layer norm": nn.LayerNorm([4, 6, 6]),
    "layer norm of the last axis": nn.LayerNorm(6),
    "relu": nn.ReLU(),
    "relu6": nn.ReLU6(),
    "relu in place": nn.ReLU(inplace=True),
    "leaky relu": nn.LeakyReLU(0.2),
    "silu": nn.SiLU(),
    "gelu": nn.GELU(),
    "gelu by tanh": nn.GELU(approximate="tanh"),
    "hardswish": nn.Hardswish(),
    "hardsigmoid": nn.Hardsigmoid(),
    "sigmoid": nn.Sigmoid(),
    "tanh": nn.Tanh(),
    "softplus": nn.Softplus(),
    "elu": nn.ELU(),
    "softmax": nn.Softmax(1),
    "log softmax": nn.LogSoftmax(1),
    "no dropout": nn.Dropout(0.5).eval(),
    "training batch norm": nn.BatchNorm2d(4),
    "training batch norm without affine or statistics": nn.BatchNorm2d(4, affine=False, track_running_stats=False),
    "negative padding": nn.ZeroPad2d((-1, 1, -2, 0)),
    "frozen batch norm": nn.BatchNorm2d(4).eval(),
    "frozen batch norm without affine": nn.BatchNorm2d(4, affine=False).eval(),
}


@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS.keys())
def test_a_lowered_layer_has_the_gradients_of_the_layer(layer: nn.Module) -> None:
    model = before(layer)
    model(torch.zeros(1, 2, 6, 6))
    errors = lowering_errors(task_of(model))
    assert max(errors.values()) < TOLERANCE, errors


def test_a_residual_connection_adds_up_both_gradients() -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Conv2d(4, 4, 3, padding=1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.relu(self.inner(x) + x)

    model = before(Residual())
    model(torch.zeros(1, 2, 6, 6))
    assert max(lowering_errors(task_of(model)).values()) < TOLERANCE


def test_slices_concatenations_and_broadcasts_keep_their_gradients() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.rand(4, 1, 1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = x * self.scale
            left, right = x[:, :2], x[:, 2:]
            mean = x.mean((2, 3), keepdim=True).expand_as(x)
            return torch.cat([left - right, x[:, 1].unsqueeze(1), mean.transpose(2, 3)], 1)

    model = before(Mixed())
    model(torch.zeros(1, 2, 6, 6))
    assert max(lowering_errors(task_of(model)).values()) < TOLERANCE


def test_every_other_position_keeps_its_gradient() -> None:
    class Skip(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x[:, :, 1::2, ::3]

    model = before(Skip())
    model(torch.zeros(1, 2, 6, 6))
    assert max(lowering_errors(task_of(model)).values()) < TOLERANCE


SEQUENCE_LAYERS = {
    "1-d convolution": nn.Conv1d(4, 5, 3, padding=1),
    "1-d convolution with stride": nn.Conv1d(4, 5, 3, stride=2, bias=False),
    "dilated 1-d convolution": nn.Conv1d(4, 5, 3, dilation=2),
    "depthwise 1-d convolution": nn.Conv1d(4, 4, 3, padding=1, groups=4),
    "1-d max pool": nn.MaxPool1d(2),
    "1-d average pool": nn.AvgPool1d(3, 2),
    "global 1-d average pool": nn.AdaptiveAvgPool1d(1),
    "1-d batch norm": nn.BatchNorm1d(4),
    "gru": nn.GRU(6, 3, batch_first=True),
    "lstm": nn.LSTM(6, 3, batch_first=True),
    "tanh recurrence": nn.RNN(6, 3, batch_first=True),
    "two-layer gru": nn.GRU(6, 3, num_layers=2, batch_first=True),
}


class First(nn.Module):
    """The first of a layer's results, where it gives several."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result = self.layer(x)
        return result[0] if isinstance(result, tuple) else result


@pytest.mark.parametrize("layer", SEQUENCE_LAYERS.values(), ids=SEQUENCE_LAYERS.keys())
def test_a_lowered_layer_over_sequences_has_the_gradients_of_the_layer(layer: nn.Module) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv1d(2, 4, 1, bias=False), First(layer), nn.Flatten(), nn.LazyLinear(3))
    model(torch.zeros(2, 2, 6))
    errors = lowering_errors(task_of(model, (2, 6)))
    assert max(errors.values()) < TOLERANCE, errors


class Attention(nn.Module):
    """Scaled dot-product attention of four heads over six positions."""

    def __init__(self, causal: bool) -> None:
        super().__init__()
        self.causal = causal
        self.qkv = nn.Linear(8, 24)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(x).reshape(-1, 6, 3, 4, 2).permute(2, 0, 3, 1, 4)
        attended = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return attended.transpose(1, 2).flatten(2)


@pytest.mark.parametrize(
    "layer",
    [Attention(False), Attention(True), First(nn.MultiheadAttention(8, 2, batch_first=True))],
    ids=["plain", "causal", "module"],
)
def test_attention_is_trained_by_products_and_a_softmax(layer: nn.Module) -> None:
    torch.manual_seed(0)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Linear(5, 8)
            self.layer = layer
            self.head = nn.Linear(48, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = self.embed(x)
            inner = self.layer.layer(h, h, h)[0] if isinstance(self.layer, First) else self.layer(h)
            return self.head((h + inner).flatten(1))

    errors = lowering_errors(task_of(Net(), (6, 5)))
    assert max(errors.values()) < TOLERANCE, errors


@pytest.mark.parametrize("padding", [None, 3])
def test_an_embedding_gets_the_gradient_of_each_word_as_often_as_it_occurs(padding: Any) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(7, 4, padding_idx=padding), nn.Flatten(), nn.Linear(20, 3))
    task = Task(model, per_sample, torch.randint(0, 7, (4, 5)), torch.randint(0, 3, (4,)))
    assert max(lowering_errors(task).values()) < TOLERANCE


def test_attention_with_a_mask_has_the_gradients_of_eager() -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)

    class Causal(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer
            self.head = nn.Linear(8, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            mask = torch.full((5, 5), -1e9).triu(1)
            return self.head(self.layer(x, src_mask=mask).mean(1))

    task = Task(Causal(), per_sample, torch.randn(4, 5, 8), torch.randint(0, 3, (4,)))
    assert max(lowering_errors(task).values()) < TOLERANCE


def test_batch_statistics_leave_the_running_ones_alone() -> None:
    model = nn.Sequential(nn.Conv2d(2, 4, 1, bias=False), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 3))
    task = task_of(model)
    before_export = task.initial_weights().copy()
    assert error_of(export(task)) < TOLERANCE
    assert (task.initial_weights() == before_export).all()


def test_ties_of_a_maximum_go_to_the_first_of_them() -> None:
    """As in torch: a gradient is neither split among equal pixels nor counted twice."""
    model = nn.Sequential(nn.Conv2d(2, 4, 1), nn.MaxPool2d(2), Head())
    task = task_of(model)
    task.example_x.zero_()
    task.example_x[..., ::3] = 1.0
    assert max(lowering_errors(task).values()) < TOLERANCE


def test_mean_squared_error_is_a_loss_too() -> None:
    torch.manual_seed(0)
    task = Task(nn.Linear(5, 3), lambda o, y: (o - y).square().mean(1), torch.randn(4, 5), torch.randn(4, 3))
    assert max(lowering_errors(task).values()) < TOLERANCE


def test_the_native_runtime_agrees_on_many_families_at_once() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 8, 3, padding=1),
        nn.GroupNorm(2, 8),
        nn.SiLU(),
        nn.MaxPool2d(3, 2, 1),
        nn.Conv2d(8, 8, 3, padding=1, groups=8),
        nn.Hardswish(),
        nn.AvgPool2d(3),
        nn.Flatten(),
        nn.LayerNorm(8),
        nn.GELU(),
        nn.Linear(8, 3),
    )
    assert error_of(export(task_of(model))) < 1e-5


def test_a_wrong_rewrite_is_found_by_verification(monkeypatch: pytest.MonkeyPatch) -> None:
    operator = torch.ops.aten.threshold_backward.default
    monkeypatch.setitem(REWRITES, operator, lambda grad, x, threshold: grad)
    with pytest.raises(ExportError, match=r"the gradient of '0\.(weight|bias)' differs from eager autograd by"):
        export(tiny_task())


class Solved(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ torch.linalg.inv_ex(torch.eye(3) * (2 + x.mean())).inverse


def test_an_unknown_operator_is_refused_with_its_module() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(72, 3))
    model.add_module("solver", Solved())
    with pytest.raises(ExportError, match=r"module 'solver' needs the operator linalg_inv_ex"):
        export(task_of(model))


def test_an_operator_that_only_the_backward_pass_needs_is_refused_with_its_module(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(REWRITES, torch.ops.aten.hardtanh_backward.default)
    monkeypatch.setattr("exporters.program.tracing.decompositions", dict)
    model = nn.Sequential(nn.Flatten(), nn.Linear(72, 3), nn.ReLU6())
    with pytest.raises(ExportError, match=r"module '2' needs the operator hardtanh_backward"):
        export(task_of(model))


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (nn.AvgPool3d(1, divisor_override=2), "divisor_override.*use a factor on what comes out"),
        (nn.LeakyReLU(2.0), "leaky_relu with the slope 2.0.*use a slope of at most 1"),
    ],
)
def test_a_refusal_says_what_to_use_instead(layer: nn.Module, reason: str) -> None:
    model = nn.Sequential(nn.Conv2d(2, 2, 1), layer, nn.Flatten(), nn.Linear(72, 3))
    with pytest.raises(ExportError, match=rf"module '1'.*{reason}"):
        export(task_of(model))


def test_a_loss_that_cannot_be_lowered_is_named_as_the_loss() -> None:
    task = tiny_task()
    task = Task(
        task.model,
        lambda o, y: per_sample(o @ torch.linalg.inv_ex(torch.eye(3) * o.mean()).inverse, y),
        task.example_x,
        task.example_y,
    )
    with pytest.raises(ExportError, match="the loss or a metric needs the operator linalg_inv_ex"):
        export(task)
