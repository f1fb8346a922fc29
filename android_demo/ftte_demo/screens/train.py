"""What this phone was given to train, how it goes, and what it costs."""

from __future__ import annotations

from ..sizes import megabytes, percent
from ..status import Phase, Status
from .page import Page, layout

__all__ = ["TrainPage", "share"]

Words = dict[str, str]


def share(progress: tuple[int, int]) -> float:
    """How much is done, 0 to 1."""
    done, of = progress
    return done / of if of else 0.0


class TrainPage(Page):
    """Plan, progress, plots, costs, pause, and when to train. Layouts call these with what they depend on."""

    def headline(self, status: Status, words: Words) -> str:
        """What the phone is doing."""
        return words[f"phase_{status.phase}"]

    def mode(self, status: Status, words: Words) -> str:
        """Who keeps it going: the app's service, or a job of the system's."""
        return words["mode_visit" if status.visit else "mode_service"] if status.joined else ""

    def part(self, status: Status, words: Words) -> str:
        """How much of the model this phone trains."""
        if not status.joined:
            return words["train_empty"]
        if not status.layers:
            return words["train_part_none"]
        return words["train_part"].format(percent=percent(status.trained_share))

    def memory(self, status: Status, words: Words) -> str:
        """Memory of training now, its peak, and the budget."""
        key = "train_memory_of" if status.budget else "train_memory_free"
        return words[key].format(
            now=megabytes(status.memory), peak=megabytes(status.memory_peak), budget=megabytes(status.budget)
        )

    def memory_share(self, status: Status) -> float:
        """The peak as a part of the budget; without one, of what the program was measured to need."""
        of = status.budget or status.program_needs
        return status.memory_peak / of if of else 0.0

    def bytes_detail(self, progress: tuple[int, int]) -> str:
        """How many bytes of how many."""
        done, of = progress
        return f"{megabytes(done)} / {megabytes(of)}" if of else ""

    def steps_detail(self, progress: tuple[int, int]) -> str:
        """How many steps of how many."""
        done, of = progress
        return f"{done} / {of}" if of else ""

    def share(self, progress: tuple[int, int]) -> float:
        """See :func:`share`."""
        return share(progress)

    def loss_points(self, status: Status) -> list[tuple[float, float]]:
        """The loss over the last steps."""
        return [(float(i), loss) for i, loss in enumerate(status.losses)]

    def newest_loss(self, status: Status) -> str:
        """The last loss."""
        return f"{status.losses[-1]:.3f}" if status.losses else ""

    def newest_accuracy(self, status: Status, words: Words) -> str:
        """The last accuracy, and of which version."""
        if not status.accuracies:
            return ""
        version, accuracy = status.accuracies[-1]
        return f"{percent(accuracy)}, {words['train_version'].format(version=version)}"

    def traffic(self, status: Status, words: Words) -> str:
        """Bytes moved, against a full exchange on the same trips."""
        moved = status.bytes_up + status.bytes_down
        if not status.bytes_dense:
            return megabytes(moved)
        return words["train_bytes_of"].format(
            bytes=megabytes(moved), dense=megabytes(status.bytes_dense), percent=percent(moved / status.bytes_dense)
        )

    def last(self, status: Status, words: Words) -> str:
        """How late the last merged update was, and how much it counted."""
        if status.staleness < 0:
            return words["train_last_none"]
        late = {0: words["train_fresh"], 1: words["train_stale_one"]}
        age = late.get(status.staleness, words["train_stale"].format(n=status.staleness))
        return words["train_last_merged"].format(age=age, percent=percent(status.weight)) if status.weight >= 0 else age

    def is_paused(self, status: Status) -> bool:
        """Whether the user paused it."""
        return bool(status.policies.get("paused", False))

    def can_pause(self, status: Status) -> bool:
        """Whether there is something to pause."""
        return status.joined and status.phase not in (Phase.FINISHED, Phase.FAILED)

    def toggle(self) -> None:
        """Pause, or go on."""
        self.app.ask({"do": "resume" if self.is_paused(self.status) else "pause"})

    def switch(self, name: str) -> None:
        """Turn a policy on or off."""
        self.app.ask({"do": "policy", "name": name, "on": not self.status.policies.get(name, False)})


layout(__file__)
