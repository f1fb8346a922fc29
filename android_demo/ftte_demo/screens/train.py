"""What this phone was given to train, how it goes, and what it costs."""

from __future__ import annotations

from ..sizes import megabytes, percent
from ..status import Phase, Status
from ..widgets.plot import smooth
from ..words import without_code
from .page import Page, layout

__all__ = ["TrainPage", "share"]

Words = dict[str, str]

# Steps of which the mean is drawn: more than one round over the samples that a phone begins with.
SMOOTH = 20
# Bytes. What Python takes for itself during a step is counted with it: the same as for a plan's prediction.
MEASURED_WITHIN = 1_000_000


def share(progress: tuple[int, int]) -> float:
    """How much is done, 0 to 1."""
    done, of = progress
    return done / of if of else 0.0


def _allowed(status: Status) -> int:
    """Bytes that training may take; 0 before that is known."""
    return status.budget or status.plan_budget


class TrainPage(Page):
    """Plan, progress, plots, costs, pause, and when to train. Layouts call these with what they depend on."""

    def headline(self, status: Status, words: Words) -> str:
        """What the phone is doing."""
        return words[f"phase_{status.shown_phase}"]

    def detail(self, status: Status, words: Words) -> str:
        """Why it does not train now; and who keeps it going: the app's service, or a job of the system's."""
        lines = [without_code(status.reason)] if status.reason else []
        if status.joined and status.phase not in (Phase.PAUSED, Phase.FINISHED, Phase.FAILED):
            lines.append(words["mode_visit" if status.visit else "mode_service"])
        return "\n".join(lines)

    def part(self, status: Status, words: Words) -> str:
        """How much of the model this phone trains."""
        if not status.joined:
            return words["train_empty"]
        if not status.layers:
            return words["train_part_none"]
        return words["train_part"].format(percent=percent(status.trained_share))

    def leaves_some(self, status: Status) -> bool:
        """Whether some of the model is not trained here."""
        return any(layer.trained < layer.size for layer in status.layers)

    def memory(self, status: Status, words: Words) -> str:
        """The peak of training's memory, and the budget: the user's, or else the plan's."""
        if not status.memory_peak:
            return words["train_memory_none"]
        key = "train_memory_of" if status.budget else "train_memory_free"
        return words[key].format(peak=megabytes(status.memory_peak), budget=megabytes(_allowed(status)))

    def memory_share(self, status: Status) -> float:
        """The peak as a part of the budget."""
        allowed = _allowed(status)
        return status.memory_peak / allowed if allowed else 0.0

    def over_budget(self, status: Status) -> bool:
        """Whether the peak is over the budget by more than a measurement within a whole app can be wrong."""
        return bool(_allowed(status)) and status.memory_peak > _allowed(status) + MEASURED_WITHIN

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
        """The loss over the last steps, smoothed."""
        return [(float(i), loss) for i, loss in enumerate(smooth(status.losses, SMOOTH))]

    def highest_loss(self, status: Status) -> str:
        """What the upper end of its axis stands for."""
        return f"{max(smooth(status.losses, SMOOTH)):.2f}" if status.losses else ""

    def newest_loss(self, status: Status, words: Words) -> str:
        """The last of it."""
        if not status.losses:
            return ""
        newest = smooth(status.losses, SMOOTH)[-1]
        return words["train_loss_now"].format(loss=f"{newest:.3f}", n=min(SMOOTH, len(status.losses)))

    def version_at(self, status: Status, index: int, words: Words) -> str:
        """The version at an end of the accuracy's axis."""
        return words["train_version"].format(version=status.accuracies[index][0]) if status.accuracies else ""

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
