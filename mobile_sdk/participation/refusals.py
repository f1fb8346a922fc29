"""
When a coordinator's no is final, and when the device comes back.

Before somebody has proved to be the run's coordinator, nothing that it says is final for a device that was let in
before: a stranger at the address, or another run's file served by mistake, costs time only. And what a proven
coordinator says is not final where a broken link or a restored backup may be the reason.
"""

from __future__ import annotations

from ..errors import Refused, Unproven
from ..storage.identity import Identity

__all__ = ["MOST_DISTURBED", "MOST_UNPROVEN", "Refusals"]

# A new device has nothing to lose: after so many words of strangers in a row, address or key are probably wrong.
MOST_UNPROVEN = 3

# What a proven coordinator says with these words is meant. Any other may be due to a link that garbles, so that nobody
# knows the word, or to a coordinator that has forgotten; it is final so many times in a row.
FINAL = ("auth", "budget", "engine", "enrolment", "revoked", "runtime", "version")
MOST_DISTURBED = 10


class Refusals:
    """
    Counts what one device was refused, in a row.

    Args:
        identity: the device's; it enrols again where a coordinator has forgotten it.

    """

    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        self._unproven = 0
        self._disturbed = 0
        self._enrols_again = False

    def welcomed(self) -> None:
        """A coordinator has proved who it is, and let the device in."""
        self._unproven = 0
        self._enrols_again = False

    def progressed(self) -> None:
        """Something came of a connection."""
        self._disturbed = 0

    def weigh(self, error: Refused) -> None:
        """
        Decide what a refusal means; returns where the device shall come back.

        Raises:
            Refused: ``error``, where it is final.

        """
        if isinstance(error, Unproven):
            self._unproven += 1
            if not self._identity.enrolled and self._unproven >= MOST_UNPROVEN:
                raise error
        elif error.code == "auth" and self._identity.enrolled and not self._enrols_again:
            # It was restored from a backup of before the device enrolled. It has proved to be the run's coordinator,
            # so it may be told the secret once more.
            self._enrols_again = True
            self._identity.forget_enrolment()
        elif error.code in FINAL:
            raise error
        else:
            self._disturbed += 1
            if self._disturbed >= MOST_DISTURBED:
                raise error
