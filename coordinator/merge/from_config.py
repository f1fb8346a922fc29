"""The merge that a run file describes."""

from __future__ import annotations

from ..config import MergeSection, OptimiserSection, StalenessSection
from .merger import Merger
from .optimisers import ServerAdam, ServerMomentum, ServerOptimiser, ServerSgd
from .staleness import AgeVariance, Constant, Distance, Exponential, Hinge, Polynomial, StalenessPolicy

__all__ = ["merger", "safe_gain", "server_optimiser", "staleness_policy"]


def merger(section: MergeSection) -> Merger:
    """What a run file says of merging."""
    return Merger(
        policy=staleness_policy(section.staleness),
        rule=section.rule,
        hostile=section.hostile,
        min_holders=section.min_holders,
        min_contributors=section.min_contributors_per_coordinate,
        optimiser=server_optimiser(section.optimiser, section.learning_rate),
        clip_norm=section.clip_norm,
        outlier_factor=section.outlier_factor,
        difference=section.difference,
    )


def safe_gain(section: MergeSection) -> float:
    """
    The critical gain below which merges could oscillate; see :mod:`coordinator.merge.stability`.

    With ``difference = "current"`` a stale update pulls the weights towards where its device ended, and at learning
    rates up to 1 no age makes that diverge.
    """
    return 0.0 if section.difference == "current" and section.learning_rate <= 1.0 else section.learning_rate


def server_optimiser(section: OptimiserSection, learning_rate: float) -> ServerOptimiser:
    """The server optimiser that a run file names."""
    match section.kind:
        case "sgd":
            return ServerSgd(learning_rate)
        case "momentum":
            return ServerMomentum(learning_rate, section.momentum, section.correct)
        case "adam":
            return ServerAdam(learning_rate, section.momentum, section.beta2, section.epsilon, section.correct)


def staleness_policy(section: StalenessSection) -> StalenessPolicy:
    """The policy that a run file names."""
    match section.policy:
        case "constant":
            return Constant()
        case "polynomial":
            return Polynomial(section.exponent)
        case "hinge":
            return Hinge(section.slope, section.threshold)
        case "exponential":
            return Exponential(section.rate)
        case "age_variance":
            return AgeVariance(section.exponent, section.beta)
        case "distance":
            return Distance(section.scale)
