"""
The search: which plan to train under which budget.

``memory.py`` predicts what plans take from a few measurements, ``knapsack.py`` and ``evolution.py`` find the plans of
the largest expected gain, ``tiers.py`` measures what they find and settles the plans of all budgets.
"""

from __future__ import annotations

from .all_budgets import MODES, Mode, Tiers, plan_tiers
from .least_budget import check_budgets, check_least
from .measurements import Measurements
from .one_budget import PlannedTier
from .plans import evidence_of, plan_for, plans_for, select

__all__ = [
    "MODES",
    "Measurements",
    "Mode",
    "PlannedTier",
    "Tiers",
    "check_budgets",
    "check_least",
    "evidence_of",
    "plan_for",
    "plan_tiers",
    "plans_for",
    "select",
]
