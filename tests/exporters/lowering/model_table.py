"""
Small models as people write them in PyTorch, and what is expected of each: the table behind ``docs/models.md``.

A row is a function that makes a task. :data:`TRAINS` are rows whose program must have the gradients of eager autograd in
both engines; :data:`REFUSED` are rows that are refused, each with what its sentence must say and the row that shows the
remedy, which trains.
"""

# Models as people write them; torch's stubs know less of tensors than torch takes.
# mypy: disable-error-code="arg-type, call-overload, operator, union-attr"

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from exporters import Task

__all__ = ["REFUSED", "TRAINS", "make"]

N = 6
TRAINS: dict[str, dict[str, Callable[[], Task]]] = {}
REFUSED: dict[str, tuple[Callable[[], Task], str, str]] = {}


class Fn(nn.Module):
    """A model whose forward pass is a function of itself and its inputs."""

    def __init__(self, forward: Callable[..., Any], **parts: Any) -> None:
        super().__init__()
        for name, part in parts.items():
            if isinstance(part, Tensor) and not isinstance(part, nn.Parameter):
                self.register_buffer(name, part)
            else:
                setattr(self, name, part)
        self.function = forward

    def forward(self, *inputs: Any, **named: Any) -> Any:
        return self.function(self, *inputs, **named)


def ce(o: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(o, y, reduction="none")


def mse(o: Tensor, y: Tensor) -> Tensor:
    return (o - y).square().flatten(1).mean(1)


def images(c: int = 3, h: int = 8, w: int = 8) -> Tensor:
    return torch.randn(N, c, h, w)


def labels(k: int = 4) -> Tensor:
    return torch.arange(N) % k


def on_images(*layers: nn.Module, c: int = 3, h: int = 8, w: int = 8, loss: Any = ce) -> Task:
    """Layers between a convolution and a linear head."""
    model = nn.Sequential(nn.Conv2d(c, 6, 3, padding=1), *layers, nn.Flatten(), nn.LazyLinear(4))
    _dry(model, images(c, h, w))
    return Task(model, loss, images(c, h, w), labels())


def _dry(model: nn.Module, x: Tensor) -> None:
    modes = {m: m.training for m in model.modules()}
    with torch.no_grad():
        model.eval()(x)
    for m, mode in modes.items():
        m.training = mode


def on_features(
    forward: Callable[..., Any], loss: Any = ce, y: Tensor | None = None, x: Tensor | None = None, **parts: Any
) -> Task:
    """A function of (n, 12) between a linear layer ``a`` (to 8) and one ``b`` (of 8 to 4)."""
    parts = {"a": nn.Linear(12, 8), "b": nn.Linear(8, 4), **parts}
    return Task(Fn(forward, **parts), loss, torch.randn(N, 12) if x is None else x, labels() if y is None else y)


def between(function: Callable[[Tensor], Tensor], **parts: Any) -> Task:
    if isinstance(function, nn.Module):
        parts["between"] = function
    return on_features(lambda s, x: s.b(function(s.a(x))), **parts)


def on_maps(function: Callable[[Tensor], Tensor]) -> Task:
    """A function of feature maps (n, 6, 8, 8)."""
    return on_images(Fn(lambda s, x: function(x)))


def with_loss(loss: Any, y: Tensor | None = None, outputs: int = 4) -> Task:
    return Task(
        nn.Sequential(nn.Linear(12, 8), nn.Tanh(), nn.Linear(8, outputs)),
        loss,
        torch.randn(N, 12),
        labels() if y is None else y,
    )


def tokens(v: int = 20, t: int = 7) -> Tensor:
    return torch.randint(1, v, (N, t))


def on_tokens(
    forward: Callable[..., Any],
    loss: Any = ce,
    y: Tensor | None = None,
    words: int = 20,
    length: int = 7,
    width: int = 8,
    **parts: Any,
) -> Task:
    parts = {"e": nn.Embedding(words, width), "h": nn.Linear(width, 4), **parts}
    return Task(Fn(forward, **parts), loss, tokens(words, length), labels() if y is None else y)


def dense_map(layers: list[nn.Module], classes: int = 3, loss: Any = None, y: Tensor | None = None) -> Task:
    """A net that keeps the image's size and gives a class per pixel."""
    model = nn.Sequential(*layers)
    loss = loss or (lambda o, y: F.cross_entropy(o, y, reduction="none").mean((1, 2)))
    return Task(model, loss, images(), torch.randint(0, classes, (N, 8, 8)) if y is None else y)


def make(row: Callable[[], Task]) -> Task:
    """The task of a row, its weights and example the same every time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return row()


def trains(kind: str, **rows: Callable[[], Task]) -> None:
    """Add rows; underscores stand for spaces."""
    TRAINS.setdefault(kind, {}).update({name.replace("_", " "): row for name, row in rows.items()})


# --- images ---------------------------------------------------------------------------------------------------------
trains(
    "convolutions",
    plain_3x3=lambda: on_images(nn.ReLU()),
    stride_and_dilation=lambda: on_images(nn.Conv2d(6, 6, 3, stride=2, dilation=2, padding=2), nn.ReLU()),
    same_padding=lambda: on_images(nn.Conv2d(6, 6, 3, padding="same"), nn.ReLU()),
    even_kernel_same_padding=lambda: on_images(nn.Conv2d(6, 6, 4, padding="same"), nn.ReLU()),
    circular_padding=lambda: on_images(nn.Conv2d(6, 6, 3, padding=1, padding_mode="circular"), nn.ReLU()),
    reflect_padding=lambda: on_images(nn.Conv2d(6, 6, 3, padding=2, padding_mode="reflect"), nn.ReLU()),
    replicate_padding=lambda: on_images(nn.Conv2d(6, 6, 3, padding=1, padding_mode="replicate"), nn.ReLU()),
    groups_of_two=lambda: on_images(nn.Conv2d(6, 8, 3, padding=1, groups=2), nn.ReLU()),
    depth_multiplier=lambda: on_images(nn.Conv2d(6, 12, 3, padding=1, groups=6), nn.ReLU()),
    grouped_1x1=lambda: on_images(nn.Conv2d(6, 12, 1, groups=3), nn.ReLU()),
    grouped_with_stride=lambda: on_images(nn.Conv2d(6, 9, 3, stride=2, padding=1, groups=3), nn.ReLU()),
    grouped_1_d=lambda: Task(
        nn.Sequential(nn.Conv1d(4, 8, 3, groups=2), nn.ReLU(), nn.Flatten(), nn.Linear(80, 4)),
        ce,
        torch.randn(N, 4, 12),
        labels(),
    ),
    transposed_2x2=lambda: on_images(nn.ConvTranspose2d(6, 4, 2, stride=2), nn.ReLU()),
    transposed_with_output_padding=lambda: on_images(
        nn.MaxPool2d(2), nn.ConvTranspose2d(6, 4, 3, stride=2, padding=1, output_padding=1)
    ),
    transposed_grouped=lambda: on_images(nn.ConvTranspose2d(6, 4, 3, stride=2, padding=1, groups=2)),
    transposed_dilated=lambda: on_images(nn.ConvTranspose2d(6, 4, 3, dilation=2, padding=1)),
    transposed_stride_1=lambda: on_images(nn.ConvTranspose2d(6, 4, 3, padding=1, bias=False)),
    transposed_1_d=lambda: Task(
        nn.Sequential(
            nn.Conv1d(4, 6, 3), nn.ConvTranspose1d(6, 4, 4, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(88, 4)
        ),
        ce,
        torch.randn(N, 4, 12),
        labels(),
    ),
    convolution_3_d=lambda: Task(
        nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 64, 4)),
        ce,
        torch.randn(N, 1, 4, 4, 4),
        labels(),
    ),
    convolution_3_d_strided=lambda: Task(
        nn.Sequential(nn.Conv3d(2, 4, (1, 3, 3), stride=(1, 2, 2)), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 3 * 9, 4)),
        ce,
        torch.randn(N, 2, 3, 7, 7),
        labels(),
    ),
    functional_with_a_standardised_weight=lambda: on_images(
        Fn(
            lambda s, x: F.conv2d(
                x, (s.w - s.w.mean((1, 2, 3), keepdim=True)) / (s.w.std((1, 2, 3), keepdim=True) + 1e-5), padding=1
            ),
            w=nn.Parameter(torch.randn(6, 6, 3, 3)),
        )
    ),
    weight_norm=lambda: on_images(nn.utils.parametrizations.weight_norm(nn.Conv2d(6, 6, 3)), nn.ReLU()),
    old_weight_norm=lambda: between(lambda x: x, b=nn.utils.weight_norm(nn.Linear(8, 4))),
    spectral_norm_in_eval=lambda: on_images(
        nn.utils.parametrizations.spectral_norm(nn.Conv2d(6, 6, 3)).eval(), nn.ReLU()
    ),
    unfold=lambda: on_maps(lambda x: F.unfold(x, 3, padding=1, stride=2)),
    unfold_and_fold=lambda: on_maps(lambda x: F.fold(F.unfold(x, 2, stride=2), (8, 8), 2, stride=2) * x),
    blur_with_a_fixed_kernel=lambda: on_images(
        Fn(
            lambda s, x: F.conv2d(x, s.k, groups=6, padding=1),
            k=torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]]).div(16).expand(6, 1, 3, 3).clone(),
        )
    ),
)
trains(
    "pooling",
    ceil_mode=lambda: on_images(nn.MaxPool2d(3, stride=2, ceil_mode=True)),
    average_with_ceil_mode=lambda: on_images(nn.AvgPool2d(3, stride=2, ceil_mode=True)),
    average_without_counting_padding=lambda: on_images(nn.AvgPool2d(3, stride=2, padding=1, count_include_pad=False)),
    average_ceil_padded_not_counted=lambda: on_images(
        nn.AvgPool2d(3, stride=2, padding=1, ceil_mode=True, count_include_pad=False)
    ),
    average_ceil_padded_counted=lambda: on_images(nn.AvgPool2d(3, stride=2, padding=1, ceil_mode=True)),
    adaptive_to_3=lambda: on_images(nn.AdaptiveAvgPool2d(3)),
    adaptive_to_3_by_5=lambda: on_images(nn.AdaptiveAvgPool2d((3, 5))),
    adaptive_maximum_to_1=lambda: on_images(nn.AdaptiveMaxPool2d(1)),
    adaptive_maximum_to_3=lambda: on_images(nn.AdaptiveMaxPool2d(3)),
    adaptive_upwards=lambda: on_images(nn.MaxPool2d(4), nn.AdaptiveAvgPool2d(5)),
    one_dimension=lambda: Task(
        nn.Sequential(
            nn.Conv1d(4, 6, 3), nn.MaxPool1d(3, ceil_mode=True), nn.AdaptiveAvgPool1d(3), nn.Flatten(), nn.Linear(18, 4)
        ),
        ce,
        torch.randn(N, 4, 12),
        labels(),
    ),
    maximum_over_positions=lambda: on_maps(lambda x: x.amax((2, 3))),
    maximum_of_an_axis=lambda: on_maps(lambda x: x.max(dim=3).values),
    minimum_of_an_axis=lambda: on_maps(lambda x: x.min(dim=2)[0]),
    lp_pool=lambda: on_images(nn.Sigmoid(), nn.LPPool2d(2, 2)),
    generalised_mean=lambda: on_maps(lambda x: x.clamp(min=1e-2).pow(3.0).mean((2, 3)).pow(1 / 3)),
    three_dimensions=lambda: Task(
        nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.MaxPool3d(2), nn.AvgPool3d(2), nn.Flatten(), nn.Linear(4, 4)),
        ce,
        torch.randn(N, 1, 4, 4, 4),
        labels(),
    ),
)
trains(
    "resizing and padding",
    nearest_twice=lambda: on_images(nn.MaxPool2d(2), nn.Upsample(scale_factor=2), nn.Conv2d(6, 3, 3)),
    nearest_to_a_size=lambda: on_images(nn.Upsample(size=(11, 5))),
    bilinear_twice=lambda: on_images(nn.MaxPool2d(2), nn.Upsample(scale_factor=2, mode="bilinear"), nn.Conv2d(6, 3, 3)),
    bilinear_aligned=lambda: on_images(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)),
    bilinear_down=lambda: on_maps(lambda x: F.interpolate(x, size=(5, 3), mode="bilinear")),
    bilinear_antialiased=lambda: on_maps(lambda x: F.interpolate(x, size=(4, 4), mode="bilinear", antialias=True)),
    bicubic=lambda: on_maps(lambda x: F.interpolate(x, scale_factor=2, mode="bicubic")),
    area=lambda: on_maps(lambda x: F.interpolate(x, size=(3, 3), mode="area")),
    linear_1_d=lambda: Task(
        nn.Sequential(nn.Conv1d(4, 6, 3), nn.Upsample(scale_factor=2, mode="linear"), nn.Flatten(), nn.Linear(120, 4)),
        ce,
        torch.randn(N, 4, 12),
        labels(),
    ),
    nearest_exact=lambda: on_maps(lambda x: F.interpolate(x, size=(5, 6), mode="nearest-exact")),
    reflect=lambda: on_images(nn.ReflectionPad2d((1, 2, 0, 3))),
    replicate=lambda: on_images(nn.ReplicationPad2d(2)),
    constant=lambda: on_images(nn.ConstantPad2d(2, 3.5)),
    circular=lambda: on_images(nn.CircularPad2d(1)),
    reflect_1_d=lambda: Task(
        nn.Sequential(
            nn.Conv1d(4, 6, 3), nn.ReflectionPad1d(2), nn.ReplicationPad1d(1), nn.Flatten(), nn.Linear(96, 4)
        ),
        ce,
        torch.randn(N, 4, 12),
        labels(),
    ),
    pixel_shuffle=lambda: on_images(nn.Conv2d(6, 8, 1), nn.PixelShuffle(2)),
    pixel_unshuffle=lambda: on_images(nn.PixelUnshuffle(2)),
    channel_shuffle=lambda: on_images(nn.ChannelShuffle(3), nn.Conv2d(6, 6, 1, groups=2)),
    flip=lambda: on_maps(lambda x: x.flip(3) + x),
    roll=lambda: on_maps(lambda x: torch.roll(x, (2, -1), (2, 3)) * x),
    rot90=lambda: on_maps(lambda x: torch.rot90(x, 1, (2, 3)) * x),
    repeat=lambda: on_maps(lambda x: x.mean((2, 3), keepdim=True).repeat(1, 2, 3, 1)),
    repeat_interleave=lambda: on_maps(lambda x: x.repeat_interleave(2, dim=2)),
    tile=lambda: on_maps(lambda x: torch.tile(x, (1, 1, 2, 1))),
    space_to_depth_by_slices=lambda: on_maps(
        lambda x: torch.cat([x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2]], 1)
    ),
    patches_by_unfold_of_a_tensor=lambda: on_maps(lambda x: x.unfold(2, 4, 2).unfold(3, 4, 2).mean((4, 5))),
)


def unet() -> nn.Module:
    def block(a: int, b: int) -> nn.Module:
        return nn.Sequential(nn.Conv2d(a, b, 3, padding=1), nn.GroupNorm(2, b), nn.ReLU())

    def forward(s: Any, x: Tensor) -> Tensor:
        a = s.d1(x)
        b = s.d2(F.max_pool2d(a, 2))
        u = F.interpolate(s.d3(F.max_pool2d(b, 2)), scale_factor=2, mode="bilinear", align_corners=False)
        u = s.u2(torch.cat([u, b], 1))
        return s.out(s.u1(torch.cat([s.up(u), a], 1)))

    return Fn(
        forward,
        d1=block(3, 4),
        d2=block(4, 8),
        d3=block(8, 8),
        u2=block(16, 8),
        up=nn.ConvTranspose2d(8, 4, 2, stride=2),
        u1=block(8, 4),
        out=nn.Conv2d(4, 3, 1),
    )


class Shuffle(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Sequential(nn.Conv2d(3, 6, 1, groups=3, bias=False), nn.BatchNorm2d(6), nn.ReLU())
        self.d = nn.Sequential(nn.Conv2d(6, 6, 3, 2, 1, groups=6, bias=False), nn.BatchNorm2d(6))
        self.b = nn.Sequential(nn.Conv2d(6, 6, 1, groups=3, bias=False), nn.BatchNorm2d(6))

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        n, c, height, width = h.shape
        h = h.view(n, 3, c // 3, height, width).transpose(1, 2).contiguous().view(n, -1, height, width)
        return F.relu(torch.cat([self.b(self.d(h)), F.avg_pool2d(x, 3, 2, 1)], 1))


class Squeeze(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.f = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(6, 2, 1), nn.SiLU(), nn.Conv2d(2, 6, 1), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        return x * self.f(x)


def cbam(s: Any, x: Tensor) -> Tensor:
    x = x * torch.sigmoid(s.m(x.mean((2, 3))) + s.m(x.amax((2, 3))))[..., None, None]
    return x * torch.sigmoid(s.c(torch.cat([x.mean(1, keepdim=True), x.max(1, keepdim=True)[0]], 1)))


class DropPath(nn.Module):
    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        mask = x.new_empty((x.shape[0],) + (1,) * (x.ndim - 1)).bernoulli_(1 - self.p)
        return x * mask.div_(1 - self.p)


def attention_2_d(s: Any, x: Tensor) -> Tensor:
    q, k, v = s.qkv(x).flatten(2).chunk(3, 1)
    return x + (v @ torch.softmax(q.transpose(1, 2) @ k / 2, -1).transpose(1, 2)).view_as(x)


def vit(s: Any, x: Tensor) -> Tensor:
    p = s.p(x).flatten(2).transpose(1, 2)
    p = torch.cat([s.c.expand(len(x), -1, -1), p], 1) + s.pos
    return s.h(s.n(s.t(p))[:, 0])


def swin_shift(x: Tensor) -> Tensor:
    x = torch.roll(x.permute(0, 2, 3, 1), shifts=(-2, -2), dims=(1, 2))
    windows = x.view(-1, 2, 4, 2, 4, 6).permute(0, 1, 3, 2, 4, 5).reshape(-1, 16, 6)
    attended = torch.softmax(windows @ windows.transpose(1, 2), -1) @ windows
    return attended.view(-1, 2, 2, 4, 4, 6).permute(0, 1, 3, 2, 4, 5).reshape(-1, 8, 8, 6)


trains(
    "image nets",
    u_net=lambda: Task(
        unet(),
        lambda o, y: F.cross_entropy(o, y, reduction="none").mean((1, 2)),
        images(),
        torch.randint(0, 3, (N, 8, 8)),
    ),
    shuffle_net=lambda: Task(
        nn.Sequential(Shuffle(), nn.Flatten(), nn.Linear(9 * 16, 4)).eval(), ce, images(), labels()
    ),
    res_ne_xt=lambda: on_images(
        Fn(
            lambda s, x: F.relu(x + s.f(x)),
            f=nn.Sequential(
                nn.Conv2d(6, 12, 1),
                nn.ReLU(),
                nn.Conv2d(12, 12, 3, padding=1, groups=4),
                nn.ReLU(),
                nn.Conv2d(12, 6, 1),
            ),
        )
    ),
    squeeze_and_excite=lambda: on_images(Squeeze()),
    channel_and_spatial_attention=lambda: on_images(Fn(cbam, m=nn.Linear(6, 6), c=nn.Conv2d(2, 1, 3, padding=1))),
    conv_ne_xt=lambda: on_images(
        Fn(
            lambda s, x: x + s.g[:, None, None] * s.f(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2),
            f=nn.Sequential(nn.LayerNorm(6), nn.Linear(6, 12), nn.GELU(), nn.Linear(12, 6)),
            g=nn.Parameter(torch.full((6,), 0.1)),
        )
    ),
    stochastic_depth=lambda: on_images(DropPath(0.3), nn.ReLU()),
    dense_net=lambda: on_images(
        Fn(lambda s, x: torch.cat([x, s.c(F.relu(x))], 1), c=nn.Conv2d(6, 4, 3, padding=1)), nn.AvgPool2d(2)
    ),
    inception=lambda: on_images(
        Fn(
            lambda s, x: torch.cat([s.a(x), s.b(x), F.max_pool2d(x, 3, 1, 1)], 1),
            a=nn.Conv2d(6, 2, 1),
            b=nn.Conv2d(6, 2, 5, padding=2),
        )
    ),
    self_attention_over_pixels=lambda: on_images(Fn(attention_2_d, qkv=nn.Conv2d(6, 18, 1))),
    vision_transformer=lambda: Task(
        Fn(
            vit,
            p=nn.Conv2d(3, 8, 4, 4),
            c=nn.Parameter(torch.zeros(1, 1, 8)),
            pos=nn.Parameter(torch.randn(1, 5, 8) * 0.02),
            t=nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True, norm_first=True),
            n=nn.LayerNorm(8),
            h=nn.Linear(8, 4),
        ),
        ce,
        images(),
        labels(),
    ),
    shifted_windows=lambda: on_maps(swin_shift),
    mlp_mixer=lambda: Task(
        Fn(
            lambda s, x: s.h(
                (lambda p: p + s.m(p.transpose(1, 2)).transpose(1, 2))(
                    x.unfold(2, 4, 4).unfold(3, 4, 4).permute(0, 2, 3, 1, 4, 5).flatten(1, 2).flatten(2)
                ).mean(1)
            ),
            m=nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 4)),
            h=nn.Linear(48, 4),
        ),
        ce,
        images(),
        labels(),
    ),
    feature_pyramid=lambda: on_images(
        Fn(
            lambda s, x: s.l(x) + F.interpolate(s.t(F.max_pool2d(x, 2)), size=x.shape[-2:]),
            l=nn.Conv2d(6, 4, 1),
            t=nn.Conv2d(6, 4, 1),
        )
    ),
    atrous_pyramid=lambda: dense_map(
        [
            nn.Conv2d(3, 4, 3, padding=1),
            nn.ReLU(),
            Fn(
                lambda s, x: torch.cat(
                    [
                        s.a(x),
                        s.b(x),
                        F.interpolate(s.c(F.adaptive_avg_pool2d(x, 1)), size=x.shape[2:], mode="bilinear"),
                    ],
                    1,
                ),
                a=nn.Conv2d(4, 4, 1),
                b=nn.Conv2d(4, 4, 3, padding=2, dilation=2),
                c=nn.Conv2d(4, 4, 1),
            ),
            nn.Conv2d(12, 3, 1),
        ]
    ),
    autoencoder=lambda: Task(
        nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU(), nn.ConvTranspose2d(6, 3, 3, 2, 1, 1), nn.Sigmoid()),
        mse,
        images(),
        torch.rand(N, 3, 8, 8),
    ),
    super_resolution=lambda: Task(
        nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.PReLU(), nn.Conv2d(8, 4, 3, padding=1), nn.PixelShuffle(2)),
        mse,
        images(1),
        torch.rand(N, 1, 16, 16),
    ),
    local_response_normalisation=lambda: on_images(nn.LocalResponseNorm(3), nn.ReLU()),
    key_points_by_soft_argmax=lambda: Task(
        Fn(
            lambda s, x: (
                lambda p: torch.stack(
                    [(p.sum(2) * torch.linspace(-1, 1, 8)).sum(-1), (p.sum(3) * torch.linspace(-1, 1, 8)).sum(-1)], -1
                ).flatten(1)
            )(torch.softmax(s.c(x).flatten(2), -1).view(len(x), 2, 8, 8)),
            c=nn.Conv2d(3, 2, 3, padding=1),
        ),
        mse,
        images(),
        torch.rand(N, 4),
    ),
    coordinate_channels=lambda: Task(
        nn.Sequential(
            Fn(
                lambda s, x: torch.cat(
                    [
                        x,
                        torch.linspace(-1, 1, 8).view(1, 1, 1, 8).expand(len(x), 1, 8, 8),
                        torch.linspace(-1, 1, 8).view(1, 1, 8, 1).expand(len(x), 1, 8, 8),
                    ],
                    1,
                )
            ),
            nn.Conv2d(5, 4, 3),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(144, 4),
        ),
        ce,
        images(),
        labels(),
    ),
    ghost_module=lambda: on_images(
        Fn(
            lambda s, x: (lambda p: torch.cat([p, s.d(p)], 1)[:, :7])(s.p(x)),
            p=nn.Conv2d(6, 4, 1),
            d=nn.Conv2d(4, 4, 3, padding=1, groups=4),
        )
    ),
    max_out=lambda: on_images(Fn(lambda s, x: x.view(len(x), 3, 2, 8, 8).max(2).values)),
)


# --- normalisation --------------------------------------------------------------------------------------------------
def rms(s: Any, x: Tensor) -> Tensor:
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * s.w


trains(
    "normalisation",
    batch_norm_with_a_bias_before=lambda: on_images(nn.BatchNorm2d(6), nn.ReLU()),
    batch_norm_1_d=lambda: Task(
        nn.Sequential(nn.Linear(12, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 4)), ce, torch.randn(N, 12), labels()
    ),
    batch_norm_over_sequences=lambda: Task(
        nn.Sequential(nn.Conv1d(4, 6, 3), nn.BatchNorm1d(6), nn.Flatten(), nn.Linear(60, 4)),
        ce,
        torch.randn(N, 4, 12),
        labels(),
    ),
    batch_norm_frozen=lambda: on_images(nn.BatchNorm2d(6).eval(), nn.ReLU()),
    batch_norm_3_d=lambda: Task(
        nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.BatchNorm3d(4), nn.ReLU(), nn.Flatten(), nn.Linear(256, 4)),
        ce,
        torch.randn(N, 1, 4, 4, 4),
        labels(),
    ),
    instance_norm=lambda: on_images(nn.InstanceNorm2d(6, affine=True), nn.ReLU()),
    instance_norm_plain=lambda: on_images(nn.InstanceNorm2d(6)),
    instance_norm_1_d=lambda: Task(
        nn.Sequential(nn.Conv1d(4, 6, 3), nn.InstanceNorm1d(6, affine=True), nn.Flatten(), nn.Linear(60, 4)),
        ce,
        torch.randn(N, 4, 12),
        labels(),
    ),
    group_norm=lambda: on_images(nn.GroupNorm(3, 6), nn.ReLU()),
    layer_norm=lambda: between(F.relu, b=nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 4))),
    layer_norm_without_bias=lambda: between(F.relu, b=nn.Sequential(nn.LayerNorm(8, bias=False), nn.Linear(8, 4))),
    layer_norm_of_channels=lambda: on_maps(lambda x: F.layer_norm(x.permute(0, 2, 3, 1), (6,)).permute(0, 3, 1, 2)),
    rms_norm=lambda: between(F.relu, b=nn.Sequential(nn.RMSNorm(8), nn.Linear(8, 4))),
    rms_norm_by_hand=lambda: on_features(lambda s, x: s.b(rms(s, s.a(x))), w=nn.Parameter(torch.ones(8))),
    variance_by_hand=lambda: between(
        lambda x: (x - x.mean(1, keepdim=True)) / torch.sqrt(x.var(1, keepdim=True, unbiased=False) + 1e-5)
    ),
    standard_deviation=lambda: between(lambda x: (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + 1e-5)),
    var_mean=lambda: between(
        lambda x: (lambda v, m: (x - m) * (v + 1e-5).rsqrt())(*torch.var_mean(x, 1, keepdim=True))
    ),
    normalize=lambda: between(lambda x: F.normalize(x, dim=1)),
    normalize_by_the_maximum=lambda: between(lambda x: F.normalize(x, p=float("inf"), dim=1)),
    norm_of_rows=lambda: between(lambda x: x / (x.norm(dim=1, keepdim=True) + 1e-6)),
    linalg_norm=lambda: between(lambda x: x / (torch.linalg.vector_norm(x, ord=1, dim=1, keepdim=True) + 1e-6)),
    global_response_norm=lambda: on_maps(
        lambda x: (lambda g: x + x * g / (g.mean(1, keepdim=True) + 1e-6))(x.norm(p=2, dim=(2, 3), keepdim=True))
    ),
    min_max_scaling=lambda: between(
        lambda x: (x - x.amin(1, keepdim=True)) / (x.amax(1, keepdim=True) - x.amin(1, keepdim=True) + 1e-6)
    ),
)

# --- elementwise ----------------------------------------------------------------------------------------------------
_ACTIVATIONS = [
    nn.ReLU(), nn.ReLU6(), nn.LeakyReLU(), nn.PReLU(), nn.PReLU(8), nn.ELU(), nn.CELU(), nn.SELU(), nn.GELU(), nn.GELU("tanh"), nn.SiLU(), nn.Mish(),
    nn.Softplus(), nn.Softplus(2, 1), nn.Softsign(), nn.Tanh(), nn.Sigmoid(), nn.LogSigmoid(), nn.Hardtanh(), nn.Hardswish(), nn.Hardsigmoid(),
    nn.Hardshrink(), nn.Softshrink(), nn.Tanhshrink(), nn.Threshold(0.1, 0.5), nn.RReLU(), nn.GLU(), nn.Softmin(1), nn.Softmax(1), nn.LogSoftmax(1),
]  # fmt: skip
for _layer in _ACTIVATIONS:
    _out = 4 if isinstance(_layer, nn.GLU) else 8
    trains("activations", **{repr(_layer): lambda layer=_layer, out=_out: between(layer, b=nn.Linear(out, 4))})
_FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "expm1": lambda x: torch.expm1(x), "log1p": lambda x: torch.log1p(x.abs()), "exp and log": lambda x: (x.exp() + 1).log(), "log2": lambda x: torch.log2(x.abs() + 1),
    "log10": lambda x: torch.log10(x.abs() + 1), "exp2": lambda x: torch.exp2(x), "sin and cos": lambda x: x.sin() * x.cos(), "tan": lambda x: torch.tan(x / 4),
    "asin": lambda x: torch.asin(x.tanh() / 2), "acos": lambda x: torch.acos(x.tanh() / 2), "atan": lambda x: x.atan(), "atan2": lambda x: torch.atan2(x, x.flip(1) + 3), "sinh": lambda x: x.sinh(),
    "cosh": lambda x: x.cosh(), "asinh": lambda x: x.asinh(), "acosh": lambda x: torch.acosh(x.abs() + 2), "atanh": lambda x: torch.atanh(x.tanh() / 2), "erf": lambda x: x.erf(), "erfc": lambda x: torch.erfc(x),
    "power": lambda x: x.abs().add(0.1) ** 1.7, "cube": lambda x: x**3, "power of tensors": lambda x: (x.abs() + 1) ** x, "number to a power": lambda x: 2.0**x, "fourth root": lambda x: (x.abs() + 0.1) ** 0.25,
    "square root": lambda x: (x.abs() + 0.1).sqrt(), "reciprocal": lambda x: 1 / (x.abs() + 1), "absolute": lambda x: x.abs(), "sign": lambda x: x * x.sign(), "floor": lambda x: x - x.detach().floor(),
    "round straight through": lambda x: x + (x.round() - x).detach(), "remainder": lambda x: torch.remainder(x, 0.7), "fmod": lambda x: torch.fmod(x, 0.7), "clamp": lambda x: x.clamp(-0.3, 0.4),
    "clamp by tensors": lambda x: torch.clamp(x, x.mean(1, keepdim=True), x.amax(1, keepdim=True)), "maximum": lambda x: torch.maximum(x, x.flip(1)), "minimum": lambda x: torch.minimum(x, 0.1 * x),
    "where": lambda x: torch.where(x > 0, x, 0.1 * x * x), "where with a number": lambda x: torch.where(x > 0, x, 0.0), "comparison as a mask": lambda x: x * (x > 0.1).float(), "boolean mask": lambda x: x * (x > 0.1),
    "masked fill": lambda x: x.masked_fill(x < 0, -0.5), "lerp": lambda x: torch.lerp(x, x.flip(1), 0.3), "addcmul": lambda x: torch.addcmul(x, x, x.flip(1), value=0.5), "addcdiv": lambda x: torch.addcdiv(x, x, x.abs() + 1, value=0.5),
    "hypot": lambda x: torch.hypot(x, x.flip(1) + 2), "logaddexp": lambda x: torch.logaddexp(x, x.flip(1)), "logit": lambda x: torch.logit(x.sigmoid() * 0.9 + 0.05), "sinc": lambda x: torch.sinc(x), "nan to num": lambda x: torch.nan_to_num(x) * x,
    "cumulative sum": lambda x: x.cumsum(1), "cumulative product": lambda x: (x.tanh() + 1.5).cumprod(1), "cumulative maximum": lambda x: x.cummax(1).values, "logsumexp": lambda x: x - torch.logsumexp(x, 1, keepdim=True), "product": lambda x: x * (x.tanh() + 2).prod(1, keepdim=True),
    "sum of squares": lambda x: x * x.square().sum(1, keepdim=True), "outer product": lambda x: torch.einsum("ni,nj->ni", x, x), "einsum": lambda x: torch.einsum("bi,bj->bij", x, x).mean(2), "diagonal": lambda x: torch.diagonal(x.unsqueeze(1) * x.unsqueeze(2), dim1=1, dim2=2),
    "triangle": lambda x: (x.unsqueeze(1) * x.unsqueeze(2)).tril().sum(1), "diag embed": lambda x: torch.diag_embed(x).sum(1), "sort": lambda x: x.sort(1).values, "descending sort": lambda x: torch.sort(x, dim=1, descending=True)[0], "top k": lambda x: x.topk(8, 1).values,
    "median": lambda x: x - x.median(1, keepdim=True).values, "gather": lambda x: x.gather(1, torch.tensor([[3, 1, 0, 2, 2, 5, 7, 6]]).expand(len(x), 8)), "integer list": lambda x: x[:, [3, 1, 0, 2, 2, 5, 7, 6]],
    "index tensor": lambda x: x[:, torch.tensor([7, 6, 5, 4, 3, 2, 1, 0])], "pairs": lambda x: (lambda i: torch.cat([x[:, i[0]] * x[:, i[1]]], 1)[:, :8])(torch.triu_indices(8, 8, 1)), "pairs of a square": lambda x: (lambda i: (x.unsqueeze(1) * x.unsqueeze(2))[:, i[0], i[1]][:, :8])(torch.triu_indices(8, 8, 1)),
    "boolean constant mask": lambda x: torch.cat([x[:, torch.tensor([True, False] * 4)]] * 2, 1), "take along": lambda x: torch.take_along_dim(x, x.argsort(1), 1), "scatter add": lambda x: torch.zeros_like(x).scatter_add(1, torch.tensor([[0, 0, 1, 1, 2, 3, 3, 3]]).expand(len(x), 8), x),
    "index add": lambda x: torch.zeros_like(x).index_add(1, torch.tensor([0, 0, 1, 1, 2, 3, 3, 3]), x), "slice write": lambda x: _written(x, slice(0, 3)), "column write": lambda x: _written(x, 2), "strided write": lambda x: _written(x, slice(0, 8, 2)),
    "write by index": lambda x: _index_written(x), "boolean write": lambda x: _mask_written(x), "in place": lambda x: x.clone().mul_(2).add_(1).clamp_(min=0), "in place on a view": lambda x: _view_written(x), "fill of a view": lambda x: _zeroed(x),
    "stack and unbind": lambda x: torch.stack(x.unbind(1)[::-1], 1), "chunks": lambda x: torch.cat(x.chunk(3, 1)[::-1], 1), "split": lambda x: torch.cat(x.split([3, 5], 1)[::-1], 1), "narrow": lambda x: torch.cat([x.narrow(1, 4, 4), x.narrow(1, 0, 4)], 1), "new axes": lambda x: x[:, None, :, None].squeeze(3).squeeze(1),
    "movedim": lambda x: x.view(-1, 2, 4).movedim(1, 2).flatten(1), "as strided": lambda x: x.as_strided((x.shape[0], 8), (8, 1)) * 2, "difference": lambda x: torch.cat([torch.diff(x, dim=1), x[:, :1]], 1), "kronecker": lambda x: x @ torch.kron(torch.eye(2), torch.ones(4, 4)), "meshgrid": lambda x: x * torch.meshgrid(torch.arange(2.0), torch.arange(4.0), indexing="ij")[0].flatten(),
    "isnan guard": lambda x: torch.where(torch.isnan(x), torch.zeros_like(x), x), "matrix power": lambda x: x @ torch.ones(8, 8).tril().matrix_power(2), "cdist": lambda x: torch.cdist(x.view(-1, 4, 2), x.view(-1, 4, 2) + 1).mean(2).repeat(1, 2), "multinomial free gumbel": lambda x: F.gumbel_softmax(x, tau=0.7),
    "hard gumbel": lambda x: F.gumbel_softmax(x, hard=True), "noise": lambda x: x + 0.1 * torch.randn_like(x), "uniform noise": lambda x: x * (0.9 + 0.2 * torch.rand(x.shape)), "dropout": lambda x: F.dropout(x, 0.3), "alpha dropout": lambda x: F.alpha_dropout(x, 0.3, training=True),
    "bucketize": lambda x: x * (torch.bucketize(x, torch.tensor([-0.5, 0.0, 0.5])) + 1), "search in rows": lambda x: x * torch.searchsorted(x.detach().sort(1).values, x[:, :8] * 0.9, right=True), "heaviside": lambda x: x * torch.heaviside(x.detach(), torch.tensor(0.5)), "cross product": lambda x: torch.cat([torch.linalg.cross(x[:, :3], x[:, 3:6], dim=1), x[:, :5]], 1), "trapezoid": lambda x: x * torch.trapezoid(x, dim=1)[:, None],
    "rotary by halves": lambda x: torch.cat([-x[..., 4:], x[..., :4]], -1) * 0.5 + x, "square distances": lambda x: ((x[:, None] - torch.eye(8)[None]) ** 2).sum(-1), "linear algebra product": lambda x: torch.linalg.multi_dot([x, torch.ones(8, 3), torch.ones(3, 8)]), "deg2rad": lambda x: torch.deg2rad(x), "trunc": lambda x: x * torch.trunc(x), "frac": lambda x: torch.frac(x), "any and all": lambda x: x * (x > 0).any(1, keepdim=True) * (x < 9).all(1, keepdim=True), "any of everything": lambda x: x * (x > 0).any() * (x == 9).any().logical_not(), "place of the largest of all": lambda x: x * (x.argmax() + x.argmin()), "argmax one hot": lambda x: x * F.one_hot(x.argmax(1), 8), "count nonzero": lambda x: x / (x > 0).sum(1, keepdim=True).clamp(min=1),
}  # fmt: skip


def _written(x: Tensor, place: Any) -> Tensor:
    y = torch.zeros_like(x)
    y[:, place] = x[:, place] * 3
    return y + x


def _index_written(x: Tensor) -> Tensor:
    y = x.clone()
    y[:, [1, 4]] = x[:, [0, 2]] * 2
    return y


def _mask_written(x: Tensor) -> Tensor:
    y = x.clone()
    y[y < 0] = 0.0
    return y * x


def _view_written(x: Tensor) -> Tensor:
    y = x * 1
    y.view(-1, 2, 4)[:, 0].mul_(3)
    return y


def _zeroed(x: Tensor) -> Tensor:
    y = x * 2
    y[:, 2:4].fill_(0.5)
    y[:, 0].zero_()
    return y * x


for _name, _function in _FUNCTIONS.items():
    trains("functions", **{_name: lambda f=_function: between(f)})


# --- sequences ------------------------------------------------------------------------------------------------------
def recurrent(layer: nn.Module, width: int, pick: Callable[[Any], Tensor]) -> Task:
    return Task(Fn(lambda s, x: s.h(pick(s.r(x))), r=layer, h=nn.Linear(width, 4)), ce, torch.randn(N, 5, 3), labels())


def cell_loop(s: Any, x: Tensor) -> Tensor:
    h = x.new_zeros(len(x), 6)
    for t in range(x.shape[1]):
        h = s.cell(x[:, t], h)
    return s.h(h)


def lstm_cell_loop(s: Any, x: Tensor) -> Tensor:
    h, c = torch.zeros(len(x), 6), torch.zeros(len(x), 6)
    outputs = []
    for step in x.unbind(1):
        h, c = s.cell(step, (h, c))
        outputs.append(h)
    return s.h(torch.stack(outputs, 1).mean(1))


def last_valid(s: Any, x: Tensor) -> Tensor:
    out, _ = s.r(s.e(x))
    last = (x != 0).sum(1) - 1
    return s.h(out[torch.arange(len(x)), last])


def masked_mean(s: Any, x: Tensor) -> Tensor:
    mask = (x != 0).unsqueeze(-1).float()
    return s.h((s.e(x) * mask).sum(1) / mask.sum(1).clamp(min=1))


def causal(s: Any, x: Tensor) -> Tensor:
    t = x.shape[1]
    mask = torch.triu(torch.ones(t, t, dtype=torch.bool), 1)
    return s.h(s.t(s.e(x), mask=mask).mean(1))


def additive_mask(s: Any, x: Tensor) -> Tensor:
    return s.h(s.t(s.e(x), mask=nn.Transformer.generate_square_subsequent_mask(x.shape[1])).mean(1))


def padded(s: Any, x: Tensor) -> Tensor:
    x = torch.cat([x[:, :-2], torch.zeros_like(x[:, -2:])], 1)
    return s.h(s.t(s.e(x), src_key_padding_mask=x == 0).mean(1))


def encoder(norm_first: bool = False, dropout: float = 0.0) -> nn.Module:
    return nn.TransformerEncoder(
        nn.TransformerEncoderLayer(8, 2, 16, dropout=dropout, batch_first=True, norm_first=norm_first),
        2,
        enable_nested_tensor=False,
    )


def positions(t: int, d: int) -> Tensor:
    p, i = torch.arange(t)[:, None], torch.exp(torch.arange(0, d, 2) * (-math.log(1e4) / d))
    table = torch.zeros(t, d)
    table[:, 0::2], table[:, 1::2] = torch.sin(p * i), torch.cos(p * i)
    return table


def manual_attention(s: Any, x: Tensor) -> Tensor:
    h = s.e(x)
    q, k, v = (m(h).view(len(x), 7, 2, 4).transpose(1, 2) for m in (s.q, s.k, s.v))
    score = q @ k.transpose(-2, -1) / math.sqrt(4)
    score = score.masked_fill(s.mask[:7, :7] == 0, float("-inf"))
    return s.h((F.softmax(score, -1) @ v).transpose(1, 2).contiguous().view(len(x), 7, 8)[:, -1])


def rope(s: Any, x: Tensor) -> Tensor:
    h = s.e(x)
    angle = torch.arange(7)[:, None] * (1.0 / 10 ** (torch.arange(0, 4).float() / 4))
    cos, sin = angle.cos(), angle.sin()
    a, b = h[..., 0::2], h[..., 1::2]
    turned = torch.stack([a * cos - b * sin, a * sin + b * cos], -1).flatten(-2)
    return s.h(F.scaled_dot_product_attention(turned, turned, h, is_causal=True).mean(1))


def language_model(tied: bool = True) -> nn.Module:
    def forward(s: Any, x: Tensor) -> Tensor:
        h = s.e(x) + s.p(torch.arange(x.shape[1]))
        h = s.t(h, mask=nn.Transformer.generate_square_subsequent_mask(x.shape[1]), is_causal=True)
        return s.out(h)

    words, out = nn.Embedding(20, 8), nn.Linear(8, 20, bias=False)
    if tied:
        out.weight = words.weight
    return Fn(forward, e=words, p=nn.Embedding(7, 8), t=encoder(True), out=out)


def per_token(o: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(o.transpose(1, 2), y, reduction="none").mean(1)


def flat_tokens(o: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(o.reshape(-1, o.shape[-1]), y.reshape(-1), reduction="none").view(y.shape).mean(1)


def alibi(s: Any, x: Tensor) -> Tensor:
    h = s.e(x)
    distance = (torch.arange(7)[None] - torch.arange(7)[:, None]).abs()
    return s.h((torch.softmax(h @ h.transpose(1, 2) - 0.5 * distance, -1) @ h).mean(1))


def relative_positions(s: Any, x: Tensor) -> Tensor:
    h = s.e(x)
    index = torch.arange(7)[:, None] - torch.arange(7)[None] + 6
    return s.h((torch.softmax(h @ h.transpose(1, 2) + s.table[index].squeeze(-1), -1) @ h).mean(1))


def grouped_queries(s: Any, x: Tensor) -> Tensor:
    h = s.e(x)
    q = s.q(h).view(len(x), 7, 4, 2).transpose(1, 2)
    k, v = (m(h).view(len(x), 7, 2, 2).transpose(1, 2).repeat_interleave(2, dim=1) for m in (s.k, s.v))
    return s.h(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2).mean(1))


def sequence_to_sequence(s: Any, x: Tensor) -> Tensor:
    source, target = s.e(x[:, :4]), s.e(x[:, 4:])
    return s.h(s.t(source, target, tgt_mask=nn.Transformer.generate_square_subsequent_mask(3)).mean(1))


def mamba_like(s: Any, x: Tensor) -> Tensor:
    h = s.e(x)
    decay = torch.sigmoid(s.d(h))
    state, outputs = torch.zeros_like(h[:, 0]), []
    for t in range(h.shape[1]):
        state = decay[:, t] * state + (1 - decay[:, t]) * h[:, t]
        outputs.append(state)
    return s.h(torch.stack(outputs, 1)[:, -1])


def mixture(s: Any, x: Tensor) -> Tensor:
    gate = torch.softmax(s.g(x), -1)
    weights, index = gate.topk(2, -1)
    sparse = torch.zeros_like(gate).scatter(1, index, weights / weights.sum(-1, keepdim=True))
    return sum(sparse[:, i : i + 1] * expert(x) for i, expert in enumerate(s.x))


trains(
    "recurrent nets",
    gru=lambda: recurrent(nn.GRU(3, 6, batch_first=True), 6, lambda r: r[0][:, -1]),
    lstm=lambda: recurrent(nn.LSTM(3, 6, batch_first=True), 6, lambda r: r[1][0][-1]),
    tanh_recurrence=lambda: recurrent(nn.RNN(3, 6, batch_first=True), 6, lambda r: r[0].mean(1)),
    relu_recurrence=lambda: recurrent(nn.RNN(3, 6, nonlinearity="relu", batch_first=True), 6, lambda r: r[0].mean(1)),
    bidirectional_gru=lambda: recurrent(nn.GRU(3, 6, batch_first=True, bidirectional=True), 12, lambda r: r[0][:, -1]),
    two_layer_lstm_with_dropout=lambda: recurrent(
        nn.LSTM(3, 6, 2, batch_first=True, dropout=0.2), 6, lambda r: r[0][:, -1]
    ),
    projected_lstm=lambda: recurrent(nn.LSTM(3, 6, proj_size=4, batch_first=True), 4, lambda r: r[0][:, -1]),
    time_first=lambda: Task(
        Fn(lambda s, x: s.h(s.r(x.transpose(0, 1))[0][-1]), r=nn.GRU(3, 6), h=nn.Linear(6, 4)),
        ce,
        torch.randn(N, 5, 3),
        labels(),
    ),
    gru_cell=lambda: Task(Fn(cell_loop, cell=nn.GRUCell(3, 6), h=nn.Linear(6, 4)), ce, torch.randn(N, 5, 3), labels()),
    lstm_cell=lambda: Task(
        Fn(lstm_cell_loop, cell=nn.LSTMCell(3, 6), h=nn.Linear(6, 4)), ce, torch.randn(N, 5, 3), labels()
    ),
    learned_initial_state=lambda: Task(
        Fn(
            lambda s, x: s.h(s.r(x, s.h0.expand(-1, len(x), -1).contiguous())[0][:, -1]),
            r=nn.GRU(3, 6, batch_first=True),
            h0=nn.Parameter(torch.zeros(1, 1, 6)),
            h=nn.Linear(6, 4),
        ),
        ce,
        torch.randn(N, 5, 3),
        labels(),
    ),
    last_valid_step=lambda: on_tokens(last_valid, r=nn.GRU(8, 8, batch_first=True)),
    convolution_then_lstm=lambda: Task(
        Fn(
            lambda s, x: s.h(s.r(F.relu(s.c(x.transpose(1, 2))).transpose(1, 2))[0][:, -1]),
            c=nn.Conv1d(3, 6, 3, padding=1),
            r=nn.LSTM(6, 6, batch_first=True),
            h=nn.Linear(6, 4),
        ),
        ce,
        torch.randn(N, 5, 3),
        labels(),
    ),
    state_space_loop=lambda: on_tokens(mamba_like, d=nn.Linear(8, 8)),
    attention_over_states=lambda: Task(
        Fn(
            lambda s, x: (lambda o: s.h((torch.softmax(s.a(o), 1) * o).sum(1)))(s.r(x)[0]),
            r=nn.GRU(3, 6, batch_first=True),
            a=nn.Linear(6, 1),
            h=nn.Linear(6, 4),
        ),
        ce,
        torch.randn(N, 5, 3),
        labels(),
    ),
)
trains(
    "text and attention",
    mean_of_embeddings=lambda: on_tokens(lambda s, x: s.h(s.e(x).mean(1))),
    masked_mean=lambda: on_tokens(masked_mean),
    embedding_with_padding=lambda: on_tokens(lambda s, x: s.h(s.e(x).mean(1)), e=nn.Embedding(20, 8, padding_idx=0)),
    embedding_with_a_largest_norm=lambda: on_tokens(lambda s, x: s.h(F.normalize(s.e(x), dim=-1).mean(1))),
    embedding_bag=lambda: on_tokens(lambda s, x: s.h(s.e(x)), e=nn.EmbeddingBag(20, 8, mode="mean")),
    embedding_bag_sum=lambda: on_tokens(lambda s, x: s.h(s.e(x)), e=nn.EmbeddingBag(20, 8, mode="sum")),
    embedding_bag_maximum=lambda: on_tokens(lambda s, x: s.h(s.e(x)), e=nn.EmbeddingBag(20, 8, mode="max")),
    int32_tokens=lambda: Task(
        Fn(lambda s, x: s.h(s.e(x).mean(1)), e=nn.Embedding(20, 8), h=nn.Linear(8, 4)), ce, tokens().int(), labels()
    ),
    text_cnn=lambda: on_tokens(
        lambda s, x: s.h(torch.cat([F.relu(c(s.e(x).transpose(1, 2))).max(2)[0] for c in s.cs], 1)),
        cs=nn.ModuleList([nn.Conv1d(8, 4, k) for k in (2, 3)]),
    ),
    one_hot_input=lambda: Task(
        Fn(lambda s, x: s.h(F.one_hot(x, 20).float().mean(1)), h=nn.Linear(20, 4)), ce, tokens(), labels()
    ),
    encoder=lambda: on_tokens(lambda s, x: s.h(s.t(s.e(x)).mean(1)), t=encoder()),
    encoder_in_eval_mode=lambda: on_tokens(lambda s, x: s.h(s.t(s.e(x)).mean(1)), t=encoder(dropout=0.1).eval()),
    encoder_with_dropout=lambda: on_tokens(lambda s, x: s.h(s.t(s.e(x)).mean(1)), t=encoder(dropout=0.1)),
    boolean_causal_mask=lambda: on_tokens(causal, t=encoder()),
    additive_causal_mask=lambda: on_tokens(additive_mask, t=encoder(True)),
    padding_mask=lambda: on_tokens(padded, t=encoder()),
    sinusoidal_positions=lambda: on_tokens(lambda s, x: s.h((s.e(x) + s.p[: x.shape[1]]).mean(1)), p=positions(7, 8)),
    positions_made_in_forward=lambda: on_tokens(lambda s, x: s.h((s.e(x) * positions(x.shape[1], 8)).mean(1))),
    learned_positions=lambda: on_tokens(
        lambda s, x: s.h((s.e(x) * s.p(torch.arange(x.shape[1]))).mean(1)), p=nn.Embedding(7, 8)
    ),
    attention_by_hand=lambda: on_tokens(
        manual_attention, q=nn.Linear(8, 8), k=nn.Linear(8, 8), v=nn.Linear(8, 8), mask=torch.tril(torch.ones(9, 9))
    ),
    multi_head_attention_with_a_key_mask=lambda: on_tokens(
        lambda s, x: s.h(s.m(s.e(x), s.e(x), s.e(x), key_padding_mask=x < 5)[0].mean(1)),
        m=nn.MultiheadAttention(8, 2, batch_first=True),
    ),
    multi_head_attention_returning_weights=lambda: on_tokens(
        lambda s, x: s.h((lambda o, w: o.mean(1) * w.mean((1, 2))[:, None])(*s.m(s.e(x), s.e(x), s.e(x)))),
        m=nn.MultiheadAttention(8, 2, batch_first=True, dropout=0.1),
    ),
    attention_dropout_in_sdpa=lambda: on_tokens(
        lambda s, x: s.h(
            F.scaled_dot_product_attention(s.e(x), s.e(x), s.e(x), dropout_p=0.2 if s.training else 0.0).mean(1)
        )
    ),
    boolean_sdpa_mask=lambda: on_tokens(
        lambda s, x: s.h(F.scaled_dot_product_attention(s.e(x), s.e(x), s.e(x), attn_mask=(x > 3)[:, None, :]).mean(1))
    ),
    rotary_positions=lambda: on_tokens(rope),
    linear_bias_positions=lambda: on_tokens(alibi),
    relative_positions=lambda: on_tokens(relative_positions, table=nn.Parameter(torch.randn(13, 1))),
    grouped_queries=lambda: on_tokens(grouped_queries, q=nn.Linear(8, 8), k=nn.Linear(8, 4), v=nn.Linear(8, 4)),
    decoder=lambda: on_tokens(sequence_to_sequence, t=nn.Transformer(8, 2, 1, 1, 16, dropout=0.0, batch_first=True)),
    language_model_tied=lambda: Task(language_model(), per_token, tokens(), tokens()),
    language_model_flattened=lambda: Task(language_model(False), flat_tokens, tokens(), tokens()),
    language_model_ignoring_padding=lambda: Task(
        language_model(False),
        lambda o, y: (
            F.cross_entropy(o.flatten(0, 1), y.flatten(), ignore_index=0, reduction="none").view(y.shape).sum(1)
            / (y != 0).sum(1).clamp(min=1)
        ),
        tokens(),
        torch.randint(0, 20, (N, 7)),
    ),
    next_token_inside_the_loss=lambda: Task(
        language_model(False),
        lambda o, y: F.cross_entropy(o[:, :-1].transpose(1, 2), y[:, 1:], reduction="none").mean(1),
        tokens(),
        tokens(),
    ),
    gated_feed_forward=lambda: on_tokens(
        lambda s, x: s.h(s.d(F.silu(s.g(s.e(x))) * s.u(s.e(x))).mean(1)),
        g=nn.Linear(8, 16),
        u=nn.Linear(8, 16),
        d=nn.Linear(16, 8),
    ),
    mixture_of_experts=lambda: Task(
        Fn(mixture, g=nn.Linear(12, 3), x=nn.ModuleList([nn.Linear(12, 4) for _ in range(3)])),
        ce,
        torch.randn(N, 12),
        labels(),
    ),
    cls_token_pick_by_index=lambda: on_tokens(lambda s, x: s.h(s.t(s.e(x))[:, [0, -1]].mean(1)), t=encoder()),
)


# --- audio, tables, graphs, pairs -----------------------------------------------------------------------------------
def graph_convolution(s: Any, x: Tensor) -> Tensor:
    a = s.adj + torch.eye(5)
    d = a.sum(1).rsqrt()
    h = F.relu(s.w1((d[:, None] * a * d[None]) @ x))
    return s.w2(h.mean(1))


def graph_attention(s: Any, x: Tensor) -> Tensor:
    h = s.w(x)
    e = F.leaky_relu(s.l(h) + s.r(h).transpose(1, 2), 0.2)
    return s.o((torch.softmax(e.masked_fill(s.adj == 0, -1e9), -1) @ h).mean(1))


def variational(s: Any, x: Tensor) -> Tensor:
    m, v = s.e(x).chunk(2, 1)
    z = m + torch.exp(0.5 * v) * torch.randn_like(v)
    return torch.cat([s.d(z), m, v], 1)


def variational_loss(o: Tensor, y: Tensor) -> Tensor:
    r, m, v = o.split([12, 3, 3], 1)
    return (r - y).square().mean(1) - 0.5 * (1 + v - m.square() - v.exp()).sum(1)


def wave_block(s: Any, x: Tensor) -> Tensor:
    x = F.pad(x, (2, 0))
    h = torch.tanh(s.f(x)) * torch.sigmoid(s.g(x))
    return s.o(h.mean(2))


def deep_fm(s: Any, x: Tensor) -> Tensor:
    e = torch.stack([table(x[:, i]) for i, table in enumerate(s.tables)], 1)
    pairs = 0.5 * (e.sum(1).square() - e.square().sum(1))
    return s.h(torch.cat([pairs, e.flatten(1)], 1))


def neural_tensor(s: Any, x: Tensor) -> Tensor:
    return s.b(F.bilinear(x[:, :6], x[:, 6:], s.w))


def kan(s: Any, x: Tensor) -> Tensor:
    return s.b(torch.einsum("nik,iko->no", torch.exp(-((s.a(x)[..., None] - torch.linspace(-1, 1, 5)) ** 2) * 4), s.c))


trains(
    "other data",
    wave_net=lambda: Task(
        Fn(wave_block, f=nn.Conv1d(2, 6, 2, dilation=2), g=nn.Conv1d(2, 6, 2, dilation=2), o=nn.Linear(6, 4)),
        ce,
        torch.randn(N, 2, 16),
        labels(),
    ),
    spectrogram_inside=lambda: Task(
        Fn(
            lambda s, x: s.h((x.unfold(1, 8, 4) @ s.basis).square().add(1e-3).log().flatten(1)),
            basis=torch.randn(8, 5),
            h=nn.Linear(35, 4),
        ),
        ce,
        torch.randn(N, 32),
        labels(),
    ),
    log_mel_on_spectrograms=lambda: Task(
        nn.Sequential(
            nn.Conv2d(1, 4, (5, 3), (2, 1)),
            nn.Hardswish(),
            nn.AdaptiveAvgPool2d((1, None)),
            nn.Flatten(),
            nn.Linear(40, 4),
        ),
        ce,
        torch.randn(N, 1, 16, 12),
        labels(),
    ),
    time_delay_statistics_pooling=lambda: Task(
        Fn(
            lambda s, x: (lambda h: s.h(torch.cat([h.mean(2), h.std(2)], 1)))(F.relu(s.c(x))),
            c=nn.Conv1d(4, 6, 3),
            h=nn.Linear(12, 4),
        ),
        ce,
        torch.randn(N, 4, 12),
        labels(),
    ),
    table_with_embeddings=lambda: Task(
        Fn(deep_fm, tables=nn.ModuleList([nn.Embedding(7, 4) for _ in range(3)]), h=nn.Linear(16, 4)),
        ce,
        torch.randint(0, 7, (N, 3)),
        labels(),
    ),
    mixed_columns=lambda: Task(
        Fn(lambda s, x: s.h(torch.cat([x[:, :4], s.e(x[:, 4].long())], 1)), e=nn.Embedding(5, 3), h=nn.Linear(7, 4)),
        ce,
        torch.cat([torch.randn(N, 4), (torch.arange(N) % 5).float()[:, None]], 1),
        labels(),
    ),
    graph_convolution=lambda: Task(
        Fn(graph_convolution, adj=(torch.rand(5, 5) > 0.5).float(), w1=nn.Linear(3, 6), w2=nn.Linear(6, 4)),
        ce,
        torch.randn(N, 5, 3),
        labels(),
    ),
    graph_attention=lambda: Task(
        Fn(
            graph_attention,
            adj=(torch.eye(5) + torch.ones(5, 5).triu(3)),
            w=nn.Linear(3, 6),
            l=nn.Linear(6, 1),
            r=nn.Linear(6, 1),
            o=nn.Linear(6, 4),
        ),
        ce,
        torch.randn(N, 5, 3),
        labels(),
    ),
    point_net=lambda: Task(
        Fn(
            lambda s, x: s.h(s.f(x).max(1).values),
            f=nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 8)),
            h=nn.Linear(8, 4),
        ),
        ce,
        torch.randn(N, 10, 3),
        labels(),
    ),
    deep_set=lambda: Task(
        Fn(lambda s, x: s.h(s.f(x).sum(1)), f=nn.Sequential(nn.Linear(3, 8), nn.Tanh()), h=nn.Linear(8, 4)),
        ce,
        torch.randn(N, 10, 3),
        labels(),
    ),
    variational_autoencoder=lambda: Task(
        Fn(variational, e=nn.Linear(12, 6), d=nn.Linear(3, 12)),
        variational_loss,
        torch.randn(N, 12),
        torch.randn(N, 12),
    ),
    denoising_with_noise_in_training=lambda: Task(
        Fn(
            lambda s, x: s.b(torch.relu(s.a(x + 0.2 * torch.randn_like(x) if s.training else x))),
            a=nn.Linear(12, 8),
            b=nn.Linear(8, 12),
        ),
        mse,
        torch.randn(N, 12),
        torch.randn(N, 12),
    ),
    siamese_halves=lambda: Task(
        Fn(lambda s, x: torch.stack([s.a(x[:, 0]), s.a(x[:, 1])], 1), a=nn.Linear(5, 3)),
        lambda o, y: F.cosine_embedding_loss(o[:, 0], o[:, 1], y, reduction="none"),
        torch.randn(N, 2, 5),
        torch.tensor([1, -1] * 3),
    ),
    triplets=lambda: Task(
        Fn(lambda s, x: s.a(x), a=nn.Linear(5, 3)),
        lambda o, y: F.triplet_margin_loss(o[:, 0], o[:, 1], o[:, 2], reduction="none"),
        torch.randn(N, 3, 5),
        labels(),
    ),
    factorisation=lambda: Task(
        Fn(lambda s, x: (s.u(x[:, 0]) * s.v(x[:, 1])).sum(1), u=nn.Embedding(9, 4), v=nn.Embedding(9, 4)),
        lambda o, y: F.binary_cross_entropy_with_logits(o, y, reduction="none"),
        torch.randint(0, 9, (N, 2)),
        torch.rand(N).round(),
    ),
    bilinear_layer=lambda: Task(
        Fn(neural_tensor, w=nn.Parameter(torch.randn(8, 6, 6) * 0.1), b=nn.Linear(8, 4)),
        ce,
        torch.randn(N, 12),
        labels(),
    ),
    radial_basis=lambda: Task(
        Fn(kan, a=nn.Linear(12, 8), b=nn.Linear(4, 4), c=nn.Parameter(torch.randn(8, 5, 4) * 0.1)),
        ce,
        torch.randn(N, 12),
        labels(),
    ),
    time_features=lambda: Task(
        Fn(
            lambda s, x: s.h(torch.cat([torch.sin(x * s.f), torch.cos(x * s.f)], 1)),
            f=nn.Parameter(torch.randn(1, 12)),
            h=nn.Linear(24, 4),
        ),
        ce,
        torch.randn(N, 12),
        labels(),
    ),
    forecasting_by_trend_and_season=lambda: Task(
        Fn(
            lambda s, x: (lambda t: s.t(t) + s.r(x - t))(
                F.avg_pool1d(F.pad(x[:, None], (2, 2), mode="replicate"), 5, 1)[:, 0]
            ),
            t=nn.Linear(12, 3),
            r=nn.Linear(12, 3),
        ),
        mse,
        torch.randn(N, 12),
        torch.randn(N, 3),
    ),
    physics_by_matrix_inverse_free_solver=lambda: between(
        lambda x: (lambda a: sum(torch.matrix_power(a, k) for k in range(1, 4)).flatten(1)[:, :8].clone())(
            x[:, :4].view(-1, 2, 2) * 0.3
        ).repeat(1, 2)
    ),
)

# --- losses ---------------------------------------------------------------------------------------------------------
CLASS_WEIGHTS = torch.tensor([1.0, 2.0, 3.0, 0.5])
_R = {"reduction": "none"}


def focal(o: Tensor, y: Tensor) -> Tensor:
    p = torch.softmax(o, 1).gather(1, y[:, None])[:, 0]
    return -((1 - p) ** 2) * torch.log(p + 1e-8)


def dice(o: Tensor, y: Tensor) -> Tensor:
    p, t = torch.softmax(o, 1), F.one_hot(y, 3).permute(0, 3, 1, 2).float()
    return 1 - (2 * (p * t).sum((1, 2, 3)) + 1) / (p.sum((1, 2, 3)) + t.sum((1, 2, 3)) + 1)


def smoothed_by_hand(o: Tensor, y: Tensor) -> Tensor:
    t = torch.full_like(o, 0.1 / 3)
    t.scatter_(1, y.unsqueeze(1), 0.9)
    return -(t * F.log_softmax(o, 1)).sum(1)


def arc_margin(o: Tensor, y: Tensor) -> Tensor:
    cosine = F.normalize(o, dim=1) * 0.99
    margin = F.one_hot(y, 4).float() * 0.3
    return F.cross_entropy(8 * torch.cos(torch.acos(cosine) + margin), y, reduction="none")


def supervised_contrast(o: Tensor, y: Tensor) -> Tensor:
    z = F.normalize(o, dim=1)
    s = z @ z.t() / 0.5
    return -(F.log_softmax(s, 1) * (y[:, None] == y[None]).float()).sum(1)


trains(
    "losses",
    cross_entropy=lambda: with_loss(ce),
    module=lambda: with_loss(nn.CrossEntropyLoss(reduction="none")),
    class_weights=lambda: with_loss(lambda o, y: F.cross_entropy(o, y, weight=CLASS_WEIGHTS, **_R)),
    class_weights_in_a_module=lambda: with_loss(nn.CrossEntropyLoss(CLASS_WEIGHTS, reduction="none")),
    class_weights_by_index=lambda: with_loss(lambda o, y: ce(o, y) * CLASS_WEIGHTS[y]),
    class_weights_by_index_select=lambda: with_loss(lambda o, y: ce(o, y) * CLASS_WEIGHTS.index_select(0, y)),
    label_smoothing=lambda: with_loss(lambda o, y: F.cross_entropy(o, y, label_smoothing=0.1, **_R)),
    label_smoothing_with_weights=lambda: with_loss(
        lambda o, y: F.cross_entropy(o, y, weight=CLASS_WEIGHTS, label_smoothing=0.1, **_R)
    ),
    label_smoothing_by_hand=lambda: with_loss(smoothed_by_hand),
    ignored_class=lambda: with_loss(lambda o, y: F.cross_entropy(o, y, ignore_index=3, **_R)),
    ignored_minus_100=lambda: with_loss(ce, torch.tensor([0, 1, -100, 2, 3, -100])),
    soft_labels=lambda: with_loss(ce, torch.softmax(torch.randn(N, 4), 1)),
    log_softmax_and_nll=lambda: with_loss(lambda o, y: F.nll_loss(F.log_softmax(o, 1), y, **_R)),
    nll_with_weights_and_ignored=lambda: with_loss(
        lambda o, y: F.nll_loss(F.log_softmax(o, 1), y, weight=CLASS_WEIGHTS, ignore_index=2, **_R)
    ),
    pick_by_index=lambda: with_loss(lambda o, y: -F.log_softmax(o, 1)[torch.arange(len(y)), y]),
    pick_by_range=lambda: with_loss(lambda o, y: -F.log_softmax(o, 1)[range(len(y)), y]),
    pick_by_gather=lambda: with_loss(lambda o, y: -F.log_softmax(o, 1).gather(1, y.unsqueeze(1)).squeeze(1)),
    one_hot=lambda: with_loss(lambda o, y: (F.softmax(o, 1) - F.one_hot(y, 4)).square().sum(1)),
    one_hot_as_float=lambda: with_loss(
        lambda o, y: F.binary_cross_entropy_with_logits(o, F.one_hot(y, 4).float(), **_R).sum(1)
    ),
    int32_labels=lambda: with_loss(lambda o, y: ce(o, y.long()), labels().int()),
    uint8_labels=lambda: with_loss(lambda o, y: ce(o, y.long()), labels().to(torch.uint8)),
    int32_labels_as_they_are=lambda: with_loss(lambda o, y: ce(o, y), labels().int()),
    focal=lambda: with_loss(focal),
    arc_margin=lambda: with_loss(arc_margin),
    segmentation=lambda: dense_map([nn.Conv2d(3, 3, 3, padding=1)]),
    segmentation_ignoring_255=lambda: dense_map(
        [nn.Conv2d(3, 3, 3, padding=1)],
        loss=lambda o, y: F.cross_entropy(o, y, ignore_index=255, **_R).mean((1, 2)),
        y=torch.where(torch.rand(N, 8, 8) > 0.8, 255, torch.randint(0, 3, (N, 8, 8))),
    ),
    segmentation_with_weights=lambda: dense_map(
        [nn.Conv2d(3, 3, 3, padding=1)],
        loss=lambda o, y: F.cross_entropy(o, y, weight=CLASS_WEIGHTS[:3], **_R).flatten(1).mean(1),
    ),
    segmentation_smoothed=lambda: dense_map(
        [nn.Conv2d(3, 3, 3, padding=1)], loss=lambda o, y: F.cross_entropy(o, y, label_smoothing=0.1, **_R).mean((1, 2))
    ),
    segmentation_flattened=lambda: dense_map(
        [nn.Conv2d(3, 3, 3, padding=1)],
        loss=lambda o, y: (
            F.cross_entropy(o.permute(0, 2, 3, 1).reshape(-1, 3), y.reshape(-1), **_R).view(len(y), -1).mean(1)
        ),
    ),
    dice=lambda: dense_map([nn.Conv2d(3, 3, 3, padding=1)], loss=dice),
    volume_cross_entropy=lambda: Task(
        nn.Conv3d(1, 3, 3, padding=1),
        lambda o, y: F.cross_entropy(o, y, **_R).flatten(1).mean(1),
        torch.randn(N, 1, 4, 4, 4),
        torch.randint(0, 3, (N, 4, 4, 4)),
    ),
    mean_squared=lambda: with_loss(lambda o, y: F.mse_loss(o, y, **_R).mean(1), torch.randn(N, 4)),
    absolute=lambda: with_loss(lambda o, y: F.l1_loss(o, y, **_R).mean(1), torch.randn(N, 4)),
    huber=lambda: with_loss(lambda o, y: F.huber_loss(o, y, delta=0.5, **_R).mean(1), torch.randn(N, 4)),
    smooth_l1=lambda: with_loss(lambda o, y: F.smooth_l1_loss(o, y, **_R).mean(1), torch.randn(N, 4)),
    quantile=lambda: with_loss(lambda o, y: torch.maximum(0.9 * (y - o[:, 0]), 0.1 * (o[:, 0] - y)), torch.randn(N), 1),
    several_quantiles=lambda: with_loss(
        lambda o, y: torch.stack(
            [torch.max(q * (y - o[:, i]), (q - 1) * (y - o[:, i])) for i, q in enumerate((0.1, 0.5, 0.9))], 1
        ).sum(1),
        torch.randn(N),
        3,
    ),
    gaussian_nll=lambda: with_loss(
        lambda o, y: F.gaussian_nll_loss(o[:, 0], y, F.softplus(o[:, 1]), **_R), torch.randn(N), 2
    ),
    gaussian_nll_full=lambda: with_loss(
        lambda o, y: F.gaussian_nll_loss(o[:, 0], y, F.softplus(o[:, 1]), full=True, **_R), torch.randn(N), 2
    ),
    poisson_nll=lambda: with_loss(lambda o, y: F.poisson_nll_loss(o[:, 0], y, **_R), torch.arange(6.0), 1),
    normal_distribution=lambda: with_loss(
        lambda o, y: -torch.distributions.Normal(o[:, 0], F.softplus(o[:, 1]) + 1e-3).log_prob(y), torch.randn(N), 2
    ),
    categorical_distribution=lambda: with_loss(lambda o, y: -torch.distributions.Categorical(logits=o).log_prob(y)),
    mixture_density=lambda: with_loss(
        lambda o, y: -torch.logsumexp(F.log_softmax(o[:, :2], 1) - (o[:, 2:4] - y[:, None]).square(), 1),
        torch.randn(N),
        4,
    ),
    divergence=lambda: with_loss(
        lambda o, y: F.kl_div(F.log_softmax(o, 1), y, **_R).sum(1), torch.softmax(torch.randn(N, 4), 1)
    ),
    divergence_of_logs=lambda: with_loss(
        lambda o, y: F.kl_div(F.log_softmax(o, 1), y, log_target=True, **_R).sum(1),
        torch.log_softmax(torch.randn(N, 4), 1),
    ),
    binary_with_logits=lambda: with_loss(
        lambda o, y: F.binary_cross_entropy_with_logits(o, y, **_R).mean(1), torch.rand(N, 4).round()
    ),
    binary_with_weights=lambda: with_loss(
        lambda o, y: F.binary_cross_entropy_with_logits(
            o, y, pos_weight=CLASS_WEIGHTS, weight=CLASS_WEIGHTS, **_R
        ).mean(1),
        torch.rand(N, 4).round(),
    ),
    binary=lambda: with_loss(
        lambda o, y: F.binary_cross_entropy(torch.sigmoid(o), y, **_R).mean(1), torch.rand(N, 4).round()
    ),
    binary_squeezed=lambda: with_loss(
        lambda o, y: F.binary_cross_entropy_with_logits(o.squeeze(1), y.float(), **_R), labels(2), 1
    ),
    multi_margin=lambda: with_loss(lambda o, y: F.multi_margin_loss(o, y, **_R)),
    multi_label_soft_margin=lambda: with_loss(
        lambda o, y: F.multilabel_soft_margin_loss(o, y, **_R), torch.rand(N, 4).round()
    ),
    hinge_embedding=lambda: with_loss(
        lambda o, y: F.hinge_embedding_loss(o[:, 0], y, **_R), torch.tensor([1.0, -1] * 3), 1
    ),
    soft_margin=lambda: with_loss(lambda o, y: F.soft_margin_loss(o[:, 0], y, **_R), torch.tensor([1.0, -1] * 3), 1),
    margin_ranking=lambda: with_loss(
        lambda o, y: F.margin_ranking_loss(o[:, 0], o[:, 1], y, margin=0.2, **_R), torch.tensor([1.0, -1] * 3), 2
    ),
    cosine_similarity=lambda: with_loss(lambda o, y: 1 - F.cosine_similarity(o, y, dim=1), torch.randn(N, 4)),
    log_cosh=lambda: with_loss(lambda o, y: torch.log(torch.cosh(o - y)).mean(1), torch.randn(N, 4)),
    structural=lambda: Task(
        nn.Conv2d(3, 3, 3, padding=1),
        lambda o, y: (F.avg_pool2d(o, 3, 1) - F.avg_pool2d(y, 3, 1)).square().flatten(1).mean(1),
        images(),
        images(),
    ),
    total_variation=lambda: Task(
        nn.Conv2d(3, 3, 3, padding=1),
        lambda o, y: (o - y).abs().flatten(1).mean(1) + (o[..., 1:] - o[..., :-1]).abs().flatten(1).mean(1),
        images(),
        images(),
    ),
    ordinal=lambda: with_loss(
        lambda o, y: F.binary_cross_entropy_with_logits(o, (y[:, None] > torch.arange(4)).float(), **_R).sum(1)
    ),
    masked_regression=lambda: with_loss(
        lambda o, y: (torch.where(y.isnan(), 0.0, o - torch.nan_to_num(y)) ** 2).sum(1), torch.randn(N, 4)
    ),
    contrast_inside_the_batch=lambda: with_loss(supervised_contrast),
    two_heads=lambda: Task(
        Fn(lambda s, x: torch.cat([s.a(x), s.b(x)], 1), a=nn.Linear(12, 4), b=nn.Linear(12, 1)),
        lambda o, y: ce(o[:, :4], y[:, 0].long()) + (o[:, 4] - y[:, 1]).square(),
        torch.randn(N, 12),
        torch.stack([labels().float(), torch.randn(N)], 1),
    ),
    distillation=lambda: with_loss(
        lambda o, y: F.kl_div(F.log_softmax(o / 2, 1), F.softmax(y / 2, 1), **_R).sum(1) * 4, torch.randn(N, 4)
    ),
    penalty_in_the_loss=lambda: with_loss(lambda o, y: ce(o, y) + 0.01 * o.abs().sum(1)),
)


# --- what users mean ------------------------------------------------------------------------------------------------
class Backbone(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.back = nn.Linear(12, 16)
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            z = F.relu(self.back(x))
        return self.head(z)


def frozen_first() -> nn.Module:
    model = nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 4))
    model[0].requires_grad_(False)
    return model


def unused_layer() -> nn.Module:
    return Fn(lambda s, x: s.b(torch.relu(s.a(x))), a=nn.Linear(12, 8), b=nn.Linear(8, 4), c=nn.Linear(8, 4))


def tied_autoencoder() -> nn.Module:
    return Fn(lambda s, x: F.linear(torch.tanh(s.a(x)), s.a.weight.t()), a=nn.Linear(12, 5))


def moving_mean(s: Any, x: Tensor) -> Tensor:
    if s.training:
        s.seen.mul_(0.9).add_(0.1 * x.detach().mean(0))
    return s.a(x - s.seen)


def ids_and_mask() -> tuple[Tensor, Tensor]:
    return tokens(), (torch.arange(7)[None] < torch.tensor([7, 6, 5, 4, 3, 2])[:, None]).float()


def masked(s: Any, ids: Tensor, mask: Tensor) -> Tensor:
    return s.h((s.e(ids) * mask[..., None]).sum(1) / mask.sum(1, keepdim=True))


def pair_model() -> nn.Module:
    return Fn(masked, e=nn.Embedding(20, 8), h=nn.Linear(8, 4))


def compiled() -> nn.Module:
    model: Any = torch.compile(nn.Sequential(nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 4)))
    return model


def tabular(loss: Any, y: Tensor | None = None) -> Task:
    return Task(nn.Linear(12, 4), loss, torch.randn(N, 12), labels() if y is None else y)


def simple() -> nn.Module:
    return nn.Sequential(nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 4))


trains(
    "what is meant",
    backbone_under_no_grad=lambda: Task(Backbone(), ce, torch.randn(N, 12), labels()),
    layer_told_not_to_learn=lambda: Task(frozen_first(), ce, torch.randn(N, 12), labels()),
    detached_features=lambda: on_features(lambda s, x: s.b(s.a(x).detach())),
    unused_layer=lambda: Task(unused_layer(), ce, torch.randn(N, 12), labels()),
    tied_weights=lambda: Task(tied_autoencoder(), mse, torch.randn(N, 12), torch.randn(N, 12)),
    shared_module_under_two_names=lambda: Task(
        (lambda a: Fn(lambda s, x: s.h(torch.relu(s.q(torch.relu(s.p(x))))), p=a, q=a, h=nn.Linear(12, 4)))(
            nn.Linear(12, 12)
        ),
        ce,
        torch.randn(N, 12),
        labels(),
    ),
    bytes_as_images=lambda: Task(
        nn.Sequential(Fn(lambda s, x: x.float() / 255), nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 4)),
        ce,
        torch.randint(0, 256, (N, 3, 8, 8), dtype=torch.uint8),
        labels(),
    ),
    cast_to_float32=lambda: on_features(lambda s, x: s.b(torch.relu(s.a(x.to(torch.float32))).float())),
    like_another=lambda: on_features(lambda s, x: s.b(torch.relu(s.a(x)) * torch.arange(8).type_as(x))),
    float64_example=lambda: Task(simple(), ce, torch.randn(N, 12, dtype=torch.float64), labels()),
    turned_example=lambda: Task(
        nn.Sequential(nn.Flatten(), nn.Linear(60, 4)), ce, torch.randn(N, 12, 5).transpose(1, 2), labels()
    ),
    channels_last_example=lambda: Task(
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        ce,
        images().to(memory_format=torch.channels_last),
        labels(),
    ),
    channels_last_model=lambda: Task(
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()).to(memory_format=torch.channels_last),
        ce,
        images(),
        labels(),
    ),
    two_inputs=lambda: Task(nn.Bilinear(6, 3, 4), ce, (torch.randn(N, 6), torch.randn(N, 3)), labels()),
    ids_and_mask=lambda: Task(pair_model(), ce, ids_and_mask(), labels()),
    named_inputs=lambda: Task(pair_model(), ce, dict(zip(("ids", "mask"), ids_and_mask(), strict=True)), labels()),
    image_and_table=lambda: Task(
        Fn(
            lambda s, image, table: s.h(torch.cat([s.c(image).mean((2, 3)), table], 1)),
            c=nn.Conv2d(3, 4, 3),
            h=nn.Linear(7, 4),
        ),
        ce,
        {"image": images(), "table": torch.randn(N, 3)},
        labels(),
    ),
    two_targets=lambda: Task(
        Fn(lambda s, x: torch.cat([s.a(x), s.b(x)], 1), a=nn.Linear(12, 4), b=nn.Linear(12, 1)),
        lambda o, y: ce(o[:, :4], y[0]) + (o[:, 4] - y[1]).square(),
        torch.randn(N, 12),
        (labels(), torch.randn(N)),
    ),
    named_targets=lambda: Task(
        Fn(lambda s, x: torch.cat([s.a(x), s.b(x)], 1), a=nn.Linear(12, 4), b=nn.Linear(12, 1)),
        lambda o, y: ce(o[:, :4], y["kind"]) + (o[:, 4] - y["size"]).square(),
        torch.randn(N, 12),
        {"kind": labels(), "size": torch.randn(N)},
    ),
    compiled_model=lambda: Task(compiled(), ce, torch.randn(N, 12), labels()),
    data_parallel=lambda: Task(nn.DataParallel(simple()), ce, torch.randn(N, 12), labels()),
    checkpointed=lambda: on_features(
        lambda s, x: s.b(checkpoint(lambda t: torch.relu(s.a(t)), x, use_reentrant=False))
    ),
    checkpointed_reentrant=lambda: on_features(
        lambda s, x: s.b(checkpoint(lambda t: torch.relu(s.a(t)), x, use_reentrant=True))
    ),
    autocast_region=lambda: on_features(lambda s, x: s.b(torch.autocast("cpu", dtype=torch.bfloat16)(s.a)(x).float())),
    buffer_that_forward_moves=lambda: Task(
        Fn(moving_mean, a=nn.Linear(12, 4), seen=torch.zeros(12)), ce, torch.randn(N, 12) + 3, labels()
    ),
    spectral_norm_in_training=lambda: Task(
        nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Linear(12, 8)), nn.ReLU(), nn.Linear(8, 4)).eval(),
        ce,
        torch.randn(N, 12),
        labels(),
    ),
    linspace_in_forward=lambda: on_features(lambda s, x: s.b(s.a(x) + torch.linspace(0, 1, 8))),
    numpy_constant=lambda: on_features(
        lambda s, x: s.b(s.a(x) * torch.from_numpy(__import__("numpy").arange(8.0)).float())
    ),
    branch_on_a_setting=lambda: on_features(lambda s, x: s.b(F.relu(s.a(x)) * (0.5 if s.training else 1.0))),
    assertion_on_shapes=lambda: on_features(lambda s, x: s.b(s.a(x)) if x.shape[1] == 12 else x),
    matching_sizes_in_python=lambda: on_features(lambda s, x: s.b(s.a(x).view(x.size(0), -1))),
    mask_instead_of_a_branch=lambda: on_features(lambda s, x: torch.where(x.mean() > 0, s.b(s.a(x)), -s.b(s.a(x)))),
    scale_without_item=lambda: on_features(lambda s, x: s.b(s.a(x) / x.abs().amax(1, keepdim=True).clamp(min=1e-6))),
    product_with_a_mask=lambda: on_features(lambda s, x: s.b((s.a(x) * (s.a(x) > 0)).cumsum(1))),
    frame_cross_entropy=lambda: Task(
        Fn(lambda s, x: s.h(s.r(x)[0]), r=nn.GRU(3, 6, batch_first=True), h=nn.Linear(6, 4)),
        lambda o, y: F.cross_entropy(o.transpose(1, 2), y, reduction="none").mean(1),
        torch.randn(N, 5, 3),
        torch.randint(0, 4, (N, 5)),
    ),
    fourier_by_products=lambda: on_features(
        lambda s, x: s.b(
            (
                (s.a(x) @ torch.cos(torch.arange(8.0)[:, None] * torch.arange(8.0) * math.pi / 4)) ** 2
                + (s.a(x) @ torch.sin(torch.arange(8.0)[:, None] * torch.arange(8.0) * math.pi / 4)) ** 2
                + 1e-3
            ).sqrt()
        )
    ),
    rows_by_fixed_steps=lambda: on_features(
        lambda s, x: s.b(s.a(x) @ (torch.eye(8) + s.w + s.w @ s.w + s.w @ s.w @ s.w)),
        w=nn.Parameter(torch.randn(8, 8) * 0.05),
    ),
    bins_by_comparison=lambda: on_features(
        lambda s, x: s.b(s.a(x) + (x[..., None] >= torch.linspace(-2, 2, 8)).float().sum(1))
    ),
    module_that_was_scripted=lambda: Task(simple(), ce, torch.randn(N, 12), labels()),
    lazy_layer_after_a_call=lambda: Task(
        _called(nn.Sequential(nn.LazyLinear(8), nn.ReLU(), nn.Linear(8, 4))), ce, torch.randn(N, 12), labels()
    ),
    half_model_made_float=lambda: Task(simple().half().float(), ce, torch.randn(N, 12), labels()),
    momentum_of_statistics=lambda: on_images(nn.BatchNorm2d(6, momentum=0.01), nn.ReLU()),
    one_tensor_out_of_two=lambda: Task(
        Fn(lambda s, x: torch.cat([s.a(x), s.b(x)], 1), a=nn.Linear(12, 4), b=nn.Linear(12, 2)),
        lambda o, y: ce(o[:, :4], y),
        torch.randn(N, 12),
        labels(),
    ),
)


def _called(model: nn.Module) -> nn.Module:
    model(torch.randn(N, 12))
    return model


def _scripted() -> nn.Module:
    module: nn.Module = torch.jit.script(simple())
    return module


# --- refused --------------------------------------------------------------------------------------------------------
def refuses(name: str, row: Callable[[], Task], sentence: str, remedy: str) -> None:
    """Add a row that is refused: a part of what is said, and the row that shows what to write instead."""
    REFUSED[name] = row, sentence, remedy


def packed(s: Any, x: Tensor) -> Tensor:
    lengths = (x[..., 0] != 0).sum(1)
    sequence = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    return s.h(s.r(sequence)[1][0][-1])


def counted(s: Any, x: Tensor) -> Tensor:
    s.steps += 1
    return s.a(x)


refuses(
    "branch on a value",
    lambda: on_features(lambda s, x: s.b(s.a(x)) if x.mean() > 0 else -s.b(s.a(x))),
    "the model's own forward decides by a number that the data give",
    "mask instead of a branch",
)
refuses(
    ".item()",
    lambda: on_features(lambda s, x: s.b(s.a(x) / max(x.abs().max().item(), 1e-6))),
    "the model's own forward decides by a number that the data give",
    "scale without item",
)
refuses(
    "numpy in forward",
    lambda: on_features(lambda s, x: s.b(s.a(x)) * torch.from_numpy(x.numpy().mean(1, keepdims=True))),
    "leaves torch for numpy",
    "scale without item",
)
refuses(
    "packed sequences",
    lambda: Task(Fn(packed, r=nn.LSTM(3, 6, batch_first=True), h=nn.Linear(6, 4)), ce, torch.randn(N, 5, 3), labels()),
    "takes packed sequences",
    "last valid step",
)
refuses(
    "selection by a mask",
    lambda: on_features(lambda s, x: s.b(s.a(x)) + s.a(x)[s.a(x) > 0].sum()),
    "whose result is as long as the data decide",
    "product with a mask",
)
refuses(
    "ctc",
    lambda: Task(
        Fn(lambda s, x: s.h(s.r(x)[0]), r=nn.GRU(3, 6, batch_first=True), h=nn.Linear(6, 4)),
        lambda o, y: F.ctc_loss(
            F.log_softmax(o, 2).transpose(0, 1), y, torch.full((len(y),), 5), torch.full((len(y),), 2), reduction="none"
        ),
        torch.randn(N, 5, 3),
        torch.randint(1, 4, (N, 2)),
    ),
    "_ctc_loss|decides by a number",
    "frame cross entropy",
)
refuses(
    "complex numbers",
    lambda: between(
        lambda x: torch.view_as_real(
            torch.view_as_complex(x.view(-1, 4, 2).contiguous()) * torch.polar(torch.ones(4), torch.arange(4.0))
        ).flatten(1)
    ),
    "needs the operator",
    "fourier by products",
)
refuses(
    "fourier transform",
    lambda: between(lambda x: torch.fft.rfft(x, n=8).abs()[:, :4].repeat(1, 2)),
    "needs the operator",
    "fourier by products",
)
refuses(
    "matrix inverse",
    lambda: on_features(
        lambda s, x: s.b(s.a(x) @ torch.linalg.inv(torch.eye(8) + s.w)), w=nn.Parameter(torch.randn(8, 8) * 0.05)
    ),
    "needs the operator",
    "rows by fixed steps",
)
refuses(
    "resampling where the data say",
    lambda: on_maps(lambda x: F.grid_sample(x, torch.tanh(x[:, :2].permute(0, 2, 3, 1)), align_corners=False)),
    "needs the operator grid_sampler",
    "bilinear down",
)
refuses(
    "random integers",
    lambda: on_features(lambda s, x: s.b(s.a(x) * torch.randint(0, 2, x[:, :8].shape))),
    "draws from randint",
    "dropout",
)
refuses(
    "torch script",
    lambda: Task(_scripted(), ce, torch.randn(N, 12), labels()),
    "TorchScript",
    "module that was scripted",
)
refuses(
    "lazy layer",
    lambda: Task(nn.Sequential(nn.LazyLinear(8), nn.Linear(8, 4)), ce, torch.randn(N, 12), labels()),
    "has no shape yet",
    "lazy layer after a call",
)
refuses(
    "half precision",
    lambda: Task(simple().half(), lambda o, y: ce(o.float(), y), torch.randn(N, 12).half(), labels()),
    "float32",
    "half model made float",
)
refuses(
    "cumulative statistics",
    lambda: on_images(nn.BatchNorm2d(6, momentum=None), nn.ReLU()),
    "momentum",
    "momentum of statistics",
)
refuses(
    "counter in forward",
    lambda: Task(
        Fn(counted, a=nn.Linear(12, 4), steps=torch.zeros(1, dtype=torch.int64)), ce, torch.randn(N, 12), labels()
    ),
    "steps",
    "buffer that forward moves",
)
refuses(
    "tuple of outputs",
    lambda: Task(
        Fn(lambda s, x: (s.a(x), s.b(x)), a=nn.Linear(12, 4), b=nn.Linear(12, 2)),
        lambda o, y: ce(o[0], y),
        torch.randn(N, 12),
        labels(),
    ),
    "one tensor",
    "one tensor out of two",
)
refuses("mean of the batch as loss", lambda: tabular(lambda o, y: F.cross_entropy(o, y)), "reduction", "cross entropy")
