"""
When a no is final, and when the device comes back.

Before somebody has proved to be the run's coordinator, nothing that it says is final for a device that was let in
before: a stranger at the address, or another run's file served by mistake, costs time only. And what a proven
coordinator says or sends is not final at once where a broken link or a restored backup may be the reason: without TLS,
a link may change bytes in what the device said, in the answer, or in a program's signature.
"""

from __future__ import annotations

from ..errors import PayloadError, ProgramRejected, Refused, Unproven
from ..storage.identity import Identity

__all__ = ["MOST_DISTURBED", "MOST_SAID", "MOST_UNPROVEN", "Refusals"]

# A new device has nothing to lose: after so many words of strangers in a row, address or key are probably wrong.
MOST_UNPROVEN = 3

# With these words a proven coordinator answers what the device said of itself (token, engine, budget), which a link may
# have garbled. Said so many times in a row, they are meant.
FINAL = ("auth", "budget", "engine", "enrolment", "runtime", "version")
MOST_SAID = 3

# Any other word may be one that a link has garbled, and so may what came with an assignment: a program whose signature
# does not fit, weights that do not go together. So many of these in a row are final.
MOST_DISTURBED = 10


class Refusals:
    """
    Counts what one device was refused, and what it refused itself, in a row.

    Args:
        identity: the device's; it enrols again where a coordinator has forgotten it.

    """

    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        self._unproven = 0
        self._disturbed = 0
        self._word = ""
        self._said = 0
        self._enrols_again = False

    def welcomed(self) -> None:
        """A coordinator has proved who it is, and let the device in."""
        self._unproven = 0
        self._enrols_again = False

    def progressed(self) -> None:
        """Something came of a connection."""
        self._disturbed = 0
        self._word = ""

    def weigh(self, error: Refused | ProgramRejected | PayloadError) -> None:
        """
        Decide what a refusal means; returns where the device shall come back.

        Args:
            error: what the coordinator said, or what is wrong with what it sent.

        Raises:
            Refused, ProgramRejected, PayloadError: ``error``, where it is final.
            OSError: if the disk does not take what it means; then it is weighed anew the next time.

        """
        if isinstance(error, Unproven):
            self._unproven += 1
            if not self._identity.enrolled and self._unproven >= MOST_UNPROVEN:
                raise error
            return
        word = error.code if isinstance(error, Refused) else ""
        if word == "auth" and self._identity.enrolled and not self._enrols_again:
            # It was restored from a backup of before the device enrolled. It has proved to be the run's coordinator,
            # so it may be told the secret once more.
            self._identity.forget_enrolment()
            self._enrols_again = True
            return
        if word == "revoked":  # it comes after the proof, so that no link can be why
            raise error
        self._said = self._said + 1 if word == self._word else 1
        self._word = word
        self._disturbed += 1
        if self._disturbed >= MOST_DISTURBED or (word in FINAL and self._said >= MOST_SAID):
            raise error
