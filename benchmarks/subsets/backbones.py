"""Small backbones, pre-trained on the clean domain."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks import cifar10
from exporters import Task
from exporters.zoo.examples import correct, cross_entropy

from .domains import Domains, Sizes

__all__ = ["BACKBONES", "Pretraining", "flops", "pretrained"]


@dataclasses.dataclass(frozen=True)
class Pretraining:
    """SGD with momentum and a cosine; images are mirrored and shifted by up to three pixels."""

    epochs: int = 10
    batch: int = 64
    learning_rate: float = 0.05
    decay: float = 5e-4


class _Residual(nn.Module):
    def __init__(self, body: nn.Module, skip: Callable[[Tensor], Tensor] | None, activation: bool) -> None:
        super().__init__()
        self.body, self.activation = body, activation
        self.skip = skip

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x)
        if self.skip is not None:
            y = y + self.skip(x)
        return F.relu(y) if self.activation else y


class _Shrink(nn.Module):
    """Every other position, and zeros for new channels (He et al. 2015, option A)."""

    def __init__(self, new: int) -> None:
        super().__init__()
        self.new = new

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.new // 2, self.new - self.new // 2))


def _convolution(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    return [
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    ]


def resnet20() -> nn.Module:
    """ResNet-20 (He et al. 2015) of 8, 16 and 32 channels, its first convolution with stride 2."""
    layers: list[nn.Module] = [*_convolution(3, 8, 3, 2), nn.ReLU()]
    inputs = 8
    for outputs in (8, 16, 32):
        for block in range(3):
            stride = 2 if block == 0 and inputs != outputs else 1
            body = nn.Sequential(
                *_convolution(inputs, outputs, 3, stride), nn.ReLU(), *_convolution(outputs, outputs, 3)
            )
            skip = nn.Identity() if stride == 1 else _Shrink(outputs - inputs)
            layers.append(_Residual(body, skip, activation=True))
            inputs = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10))


def mobilenet_v2() -> nn.Module:
    """Inverted residuals (Sandler et al. 2018), expansion 4, 12 to 32 channels, its first convolution with stride 2."""
    layers: list[nn.Module] = [*_convolution(3, 12, 3, 2), nn.ReLU6()]
    inputs = 12
    for outputs, stride in ((12, 1), (16, 2), (16, 1), (24, 1), (32, 2), (32, 1)):
        wide = 4 * inputs
        body = nn.Sequential(
            *_convolution(inputs, wide, 1),
            nn.ReLU6(),
            *_convolution(wide, wide, 3, stride, wide),
            nn.ReLU6(),
            *_convolution(wide, outputs, 1),
        )
        skip = nn.Identity() if stride == 1 and inputs == outputs else None
        layers.append(_Residual(body, skip, activation=False))
        inputs = outputs
    layers += [*_convolution(32, 96, 1), nn.ReLU6()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(96, 10))


BACKBONES: dict[str, Callable[[], nn.Module]] = {"resnet20": resnet20, "mobilenet_v2": mobilenet_v2}


def flops(model: nn.Module) -> int:
    """Multiplications and additions of a forward pass of one image."""
    total = 0

    def count(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        if isinstance(module, nn.Conv2d):
            total += 2 * output[0].numel() * module.weight[0].numel()
        elif isinstance(module, nn.Linear):
            total += 2 * module.weight.numel()

    handles = [module.register_forward_hook(count) for module in model.modules()]
    with torch.no_grad():
        model(torch.zeros(1, 3, 32, 32))
    for handle in handles:
        handle.remove()
    return total


def pretrained(name: str, domains: Domains, sizes: Sizes, settings: Pretraining, say: Callable[[str], None]) -> Task:
    """
    The task of fine-tuning a backbone in the shifted domain.

    Trained once per settings; batch normalisation is frozen, as on a device.
    """
    key = json.dumps([name, sizes.pretrain, dataclasses.asdict(settings), _source()])
    kept = cifar10.cache_folder() / f"backbone-{hashlib.sha256(key.encode()).hexdigest()[:16]}.pt"
    torch.manual_seed(0)
    model = BACKBONES[name]()
    kept.parent.mkdir(parents=True, exist_ok=True)
    _pretrain(model, domains.pretrain, settings, kept, lambda text: say(f"{name}: {text}"))
    model.to(memory_format=torch.contiguous_format).eval()  # type: ignore[call-overload]  # torch types it for 4-d alone
    x, y = domains.finetune
    return Task(model, cross_entropy, x[:16], y[:16], name=name, metrics={"accuracy": correct})


def _source() -> str:
    return hashlib.sha256("".join(inspect.getsource(f) for f in BACKBONES.values()).encode()).hexdigest()


def _pretrain(
    model: nn.Module, samples: tuple[Tensor, Tensor], settings: Pretraining, kept: Path, say: Callable[[str], None]
) -> None:
    """An epoch at a time; each is kept, so that a stopped benchmark goes on."""
    x, y = samples
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.SGD(
        model.parameters(), settings.learning_rate, momentum=0.9, weight_decay=settings.decay, nesterov=True
    )
    steps = settings.epochs * (len(x) // settings.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, settings.learning_rate * 2, steps)
    start = time.monotonic()
    first = 0
    if kept.exists():
        state = torch.load(kept, weights_only=True)
        first = state["epochs"]
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        schedule.load_state_dict(state["schedule"])
    for epoch in range(first, settings.epochs):
        right = 0.0
        random = torch.Generator().manual_seed(epoch)
        order = torch.randperm(len(x), generator=random)
        for i in range(0, len(x) - settings.batch + 1, settings.batch):
            index = order[i : i + settings.batch]
            output = model(_augmented(x[index], random))
            loss = F.cross_entropy(output, y[index])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            right += float((output.argmax(1) == y[index]).sum())
        state = {"epochs": epoch + 1, "model": model.state_dict(), "optimiser": optimiser.state_dict()}
        partial = kept.with_suffix(f".{os.getpid()}")
        torch.save({**state, "schedule": schedule.state_dict()}, partial)
        partial.replace(kept)
        say(f"epoch {epoch + 1} of {settings.epochs}: {right / len(x):.1%}, {time.monotonic() - start:.0f} s")


def _augmented(x: Tensor, random: torch.Generator) -> Tensor:
    mirrored = torch.rand(len(x), generator=random) < 0.5
    x = torch.where(mirrored[:, None, None, None], x.flip(3), x)
    dx, dy = torch.randint(-3, 4, (2,), generator=random).tolist()
    return x.roll((dy, dx), (2, 3)).contiguous(memory_format=torch.channels_last)
