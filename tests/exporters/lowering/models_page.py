"""
``docs/models.md``, made from the table of models that the tests export.

    python -m tests.exporters.lowering.models_page > docs/models.md

"""

from __future__ import annotations

import textwrap

from exporters.lowering.rewrites import portable
from tests.exporters.lowering.model_table import REFUSED, TRAINS

__all__ = ["page"]

_BEGIN = """# What trains

The exporter takes an eager `nn.Module`, a loss per sample and an example batch, and makes a program whose gradients
were compared with autograd in double precision. This page is made from a table of small models that the tests
export and run in both engines (`tests/exporters/lowering/model_table.py`). Whatever is not here either exports, is
verified and trains, or is refused in one sentence.

## Trains
"""

_MEANT = """
## How it is meant

- **Frozen.** Parameters with `requires_grad=False`, or behind `no_grad()` or `detach()`, stay as they are.
  Parameters on which the loss does not depend are left out. Both are said once at export.
- **Tied weights** are one weight under its first name: one gradient, one range of the update.
- **Several inputs.** `example_x` may be a tuple (`model(*x)`) or a dict (`model(**x)`) of tensors, `example_y` a
  tuple or dict that the loss gets as it is. Datasets give the same: `({"ids": ids, "mask": mask}, y)`; an `.npz`
  file holds `x.ids`, `x.mask` and `y`; `client.predict({"ids": ids, "mask": mask})`.
- **Batch normalisation in training mode** normalises with the micro-batch. Its running statistics move on the
  device and are averaged with the update, as does any other float32 buffer that `forward` moves. A server optimiser
  other than plain averaging treats them like weights, so prefer `merge.rule` without momentum for such models.
  Samples see each other, so a step takes full micro-batches only: samples that fill none are left out of a pass,
  with a word. In eval mode the statistics are frozen.
- **Random numbers** in training (dropout, stochastic depth, noise, Gumbel's) come from the assignment's seed. In
  evaluation and prediction a draw has the median of its distribution: noise 0, uniform 1/2.
- **Labels and tokens** that the model has no output or no row for are refused on the device, and in held-out data
  before a run, with sample and number.
- **Compiled and data-parallel** models are unwrapped, checkpoints run once, autocast regions stay in float32.
  float64, float16 and bfloat16 examples become float32, with a word; a model in another precision is refused: call
  `model.float()`.

## Trains slowly

These operators run ExecuTorch's portable kernels, one element at a time, outside of the delegate. They cost nothing
to speak of on small tensors (targets, scores, masks) and dominate a step on whole feature maps. `ftte export
--explain` marks them `portable` and estimates their share."""

_REFUSED = """
## Refused

Each sentence names the module, the operator and a remedy; the remedy is a model of the table above.

| what | write instead |
|---|---|
"""


def page() -> str:
    """The text of the page."""
    parts = [_BEGIN]
    for kind, rows in TRAINS.items():
        item = f"- **{kind.capitalize()}**: {', '.join(rows)}."
        parts.append(f"\n{_wrapped(item, '  ')}\n")
    parts.append(_MEANT)
    operators = sorted({op._schema.name.removeprefix("aten::") for op in (*portable._KEPT, *portable._ELEMENTWISE)})
    names = [*operators, "argmax", "comparisons", "index with indices that change", "sort", "topk", "where"]
    listed = ", ".join(f"`{name}`" if " " not in name else name for name in names)
    parts.append(f"\n\n{_wrapped(f'{listed}.', '')}\n")
    parts.append(_REFUSED)
    parts += [f"| {name} | {remedy} |\n" for name, (_, _, remedy) in REFUSED.items()]
    return "".join(parts)


def _wrapped(text: str, indent: str) -> str:
    return textwrap.fill(text, 120, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


if __name__ == "__main__":
    print(page(), end="")
