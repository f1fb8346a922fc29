"""What a run's plans train: warned of where that is next to nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..checks.findings import Finding
from ..merge.regions import union
from .tiers import Tier

__all__ = ["check_tiers"]

# Shares of the parameters that are exchanged, below which a warning is due: of all tiers together, and of one tier
# among what all together train.
LITTLE = 0.10
NOTHING = 0.02


def check_tiers(tiers: Sequence[Tier]) -> Iterator[Finding]:
    """Whether each tier contributes, and whether all together train more than the last layer."""
    together = union([tier.positions for tier in tiers])
    manifest = tiers[0].manifest
    size = manifest.layout.size
    if len(together) < LITTLE * size:
        yield Finding(
            "warning",
            f"the run trains {len(together)} of {size} parameters ({len(together) / size:.0%}); the others stay as the "
            "task gives them, which is random unless the model was trained before: raise the largest of [budgets] "
            "(`ftte plan` shows what each budget trains), or start from a pretrained model",
        )
    for tier in tiers:
        if len(tier.positions) < NOTHING * len(together):
            yield Finding(
                "warning",
                f"devices of the tier {tier.name} train {len(tier.positions)} of the {len(together)} parameters that "
                "are exchanged, and contribute next to nothing: raise its budget, or leave the tier out",
            )
