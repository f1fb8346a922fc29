"""Small transformers: for images, for texts of one length, for texts of any length, and one that writes on."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..task import Task
from .examples import BATCH, classifier, correct, cross_entropy, seeded

__all__ = ["encoder", "language_model", "text", "vit"]


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


class _Encoder(nn.Module):
    """Torch's own encoder; word 0 is padding, which is masked and left out of the mean."""

    def __init__(self, words: int, length: int, width: int = 32) -> None:
        super().__init__()
        self.words = nn.Embedding(words, width, padding_idx=0)
        self.positions = nn.Parameter(torch.randn(1, length, width) * 0.02)
        layer = nn.TransformerEncoderLayer(width, 2, 2 * width, dropout=0.1, batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        padding = x == 0
        y = self.blocks(self.words(x) + self.positions, src_key_padding_mask=padding)
        kept = (~padding).unsqueeze(2).float()
        logits: Tensor = self.head((y * kept).sum(1) / kept.sum(1))
        return logits


class _LanguageModel(nn.Module):
    """Each position sees those before it; the table of words is also the last layer."""

    def __init__(self, words: int, length: int, width: int = 32) -> None:
        super().__init__()
        self.words = nn.Embedding(words, width)
        self.positions = nn.Parameter(torch.randn(1, length, width) * 0.02)
        layer = nn.TransformerEncoderLayer(width, 2, 2 * width, dropout=0.0, batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, words, bias=False)
        self.head.weight = self.words.weight

    def forward(self, x: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1])
        logits: Tensor = self.head(self.norm(self.blocks(self.words(x) + self.positions, mask=mask)))
        return logits


def encoder() -> Task:
    """Up to 16 words of a vocabulary of 200, two blocks, with dropout; shorter texts are padded."""

    def make() -> tuple[nn.Module, Tensor, Tensor]:
        model, x = _Encoder(200, 16), torch.randint(1, 200, (BATCH, 16))
        lengths = torch.randint(4, 17, (BATCH, 1))
        return model, x * (torch.arange(16) < lengths), torch.randint(0, 4, (BATCH,))

    model, x, y = seeded(make)
    return Task(model, cross_entropy, x, y, name="encoder", metrics={"accuracy": correct})


def _next_word(output: Tensor, y: Tensor) -> Tensor:
    """(n, length, words) and int64 (n, length) -> (n,): the mean over positions."""
    return F.cross_entropy(output.transpose(1, 2), y, reduction="none").mean(1)


def _words_right(output: Tensor, y: Tensor) -> Tensor:
    """The part of the positions whose next word is right, shape (n,)."""
    return (output.argmax(2) == y).float().mean(1)


def language_model() -> Task:
    """The next of 16 words of a vocabulary of 200, two blocks, tied embeddings."""
    model, text = seeded(lambda: (_LanguageModel(200, 16), torch.randint(0, 200, (BATCH, 17))))
    x, y = text[:, :-1], text[:, 1:]
    return Task(model, _next_word, x, y, name="language_model", metrics={"accuracy": _words_right})
