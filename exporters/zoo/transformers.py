"""A tiny vision transformer and a small text transformer."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..task import Task
from .examples import classifier

__all__ = ["text", "vit"]


class _Block(nn.Module):
    """Attention and a two-layer net, each after a layer normalisation and beside a shortcut."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.up = nn.Linear(width, 2 * width)
        self.down = nn.Linear(2 * width, width)
        self.heads = heads

    def forward(self, x: Tensor) -> Tensor:
        n, length, width = x.shape
        parts = self.qkv(self.norm1(x)).reshape(n, length, 3, self.heads, width // self.heads)
        q, k, v = parts.permute(2, 0, 3, 1, 4).unbind(0)  # each (n, heads, length, width of a head)
        attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, length, width)
        x = x + self.out(attended)
        y: Tensor = x + self.down(F.gelu(self.up(self.norm2(x))))
        return y


class _ViT(nn.Module):
    def __init__(self, width: int = 64, patch: int = 8) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, patch, patch)
        self.summary = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(torch.randn(1, 1 + (32 // patch) ** 2, width) * 0.02)
        self.blocks = nn.Sequential(_Block(width, 4), _Block(width, 4))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.summary.expand(len(x), -1, -1), tokens], 1) + self.positions
        logits: Tensor = self.head(self.norm(self.blocks(tokens))[:, 0])
        return logits


class _Text(nn.Module):
    def __init__(self, words: int, length: int, width: int = 32) -> None:
        super().__init__()
        self.words = nn.Embedding(words, width)
        self.positions = nn.Parameter(torch.randn(1, length, width) * 0.02)
        self.block = _Block(width, 2)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.norm(self.block(self.words(x) + self.positions)).mean(1))
        return logits


def vit() -> Task:
    """32x32 colour in 16 patches, two blocks."""
    return classifier("vit", _ViT, (3, 32, 32), 10)


def text() -> Task:
    """16 words of a vocabulary of 200, one block."""
    return classifier("text", lambda: _Text(200, 16), (16,), 4, words=200)
