"""Whether the campaign finds a fault that is planted."""

from __future__ import annotations

from . import planted
from .federation import Outcome, run
from .plan import draw

__all__ = ["WITHIN", "hunt"]

# Seeds within which a planted fault has to be found.
WITHIN = 500


def hunt(name: str, address: str = "") -> Outcome:
    """
    The first federation that breaks a promise with the fault ``name``.

    Args:
        name: of a planted fault.
        address: of a PostgreSQL server, for one that needs a database.

    Raises:
        AssertionError: if none of :data:`WITHIN` seeds finds it.

    """
    world = planted.world(name)
    with planted.planted(name):
        for seed in range(WITHIN):
            outcome = run(draw(seed, gateways=world == "gateways", database=world == "database"), address)
            if outcome.problems:
                return outcome
    raise AssertionError(f"the campaign does not find {name} within {WITHIN} seeds")
