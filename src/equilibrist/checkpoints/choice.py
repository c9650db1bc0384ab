"""The recommendation: stop, go on, or take an earlier checkpoint, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from equilibrist.certificates import Json
from equilibrist.checkpoints.intervals import Values, spent
from equilibrist.checks import Interval
from equilibrist.display import Rows, Shown

ADVICE = ("go on", "stop", "take")
FEW = 3  # checkpoints below which no trend is reported


@dataclass(frozen=True)
class Look:
    """One checkpoint, as it was measured.

    Attributes:
        step: of training.
        number: which look it was, counted from 1: what its intervals may miss by is `spent(1 - confidence, number)`.
        score, gap: means over held-out rows with intervals; None where they were not measured.
        failed: why there are no numbers, in a line; empty where there are.
    """

    step: int
    number: int
    score: Interval | None = None
    gap: Interval | None = None
    failed: str = ""

    def describe(self) -> Json:
        """Plain values."""
        parts = {"score": self.score, "gap": self.gap}
        return {
            "step": self.step,
            "number": self.number,
            **{k: {"mean": v.mean, "interval": v.ends} for k, v in parts.items() if v is not None},
            "failed": self.failed or None,
        }


@dataclass(frozen=True, repr=False)
class Choice(Shown):
    """What to do, and the looks that it rests on.

    Attributes:
        advice: "go on", "stop", or "take": the checkpoint of an earlier step, for training has got worse since.
        step: of the checkpoint to take now, whatever comes after; None where none could be measured.
        reason: in a sentence.
        looks: every checkpoint, in the order in which they were looked at.
        by: the quantity that decides, in words.
        confidence: with which all intervals of one column hold together, however many looks there are.
        notes: what to know about the numbers.
    """

    advice: str
    step: int | None
    reason: str
    looks: tuple[Look, ...]
    by: str
    confidence: float = 0.95
    notes: tuple[str, ...] = ()
    about: Json = field(default_factory=dict)

    @property
    def sentence(self) -> str:
        """The recommendation with its reason."""
        if self.step is None:
            return f"Stop: {self.reason}."
        words = {
            "go on": f"Go on (the best so far is step {self.step:,})",
            "stop": f"Stop, and take step {self.step:,}",
            "take": f"Take step {self.step:,}",
        }[self.advice]
        return f"{words}: {self.reason}."

    def _facts(self) -> tuple[str, Rows]:
        rows = []
        for look in self.looks:
            cells = [look.failed] if look.failed else []
            if look.score is not None:
                cells.append(f"{self.about.get('score', 'score')} {look.score.in_words()}")
            if look.gap is not None:
                cells.append(f"gap {look.gap.in_words(self.about.get('unit', ''))}")
            mark = " <" if look.step == self.step else ""
            rows.append((f"step {look.step:,}", ", ".join(cells) + mark))
        rows += [("note", note) for note in self.notes]
        return self.sentence, rows

    def describe(self) -> Json:
        """Plain values, as checkpoints.json has them."""
        return {
            "format": 1,
            "advice": self.advice,
            "step": self.step,
            "reason": self.reason,
            "by": self.by,
            "confidence": self.confidence,
            "looks": [look.describe() for look in self.looks],
            "notes": list(self.notes),
            **self.about,
        }


@dataclass(frozen=True)
class Course:
    """The quantity that decides, over all looks: lower is better.

    Args:
        steps: of the looks, in their order.
        values: of the quantity; None for a look that failed.
        alpha: of all comparisons together.
        name: in words.
        turned: whether values are the negative of what people read (higher is better).
    """

    steps: Sequence[int]
    values: Sequence[Values | None]
    alpha: float
    name: str
    turned: bool = False

    def compare(self, a: int, b: int) -> Interval:
        """Mean of look a less that of look b, of which one is later; every pair has a share of its own of alpha."""
        later = max(a, b)
        level = spent(self.alpha, later + 1) / max(later, 1)
        x, y = self.values[a], self.values[b]
        assert x is not None
        assert y is not None
        return x.less(y, level)

    def decide(self) -> tuple[str, int | None, str]:
        """(advice, index of the checkpoint to take, reason)."""
        sound = [i for i, v in enumerate(self.values) if v is not None]
        if not sound:
            return "stop", None, "no checkpoint could be measured"
        best = min(sound, key=lambda i: float(self._of(i).values.mean()))
        last = len(self.steps) - 1
        if self.values[last] is None:
            return "take", best, f"the numbers of step {self.steps[last]:,} are not finite"
        worse = self.compare(last, best)
        if worse.low > 0:
            return "take", best, f"since then {self._moved(worse)}"
        if len(sound) < FEW:
            few = "one checkpoint shows" if len(sound) == 1 else f"{len(sound)} checkpoints show"
            return "go on", best, f"{few} no trend"
        half = max((i for i in sound if 2 * self.steps[i] <= self.steps[last]), default=sound[0])
        gained = self.compare(last, half)
        since = f"since step {self.steps[half]:,}"
        if gained.high < 0:
            return "go on", best, f"{since} {self._moved(gained)}"
        # Going on for nothing costs steps alone: for that the evidence of one look is enough.
        alone = self._of(last).less(self._of(half), self.alpha)
        if alone.high < 0:
            return (
                "go on",
                best,
                f"{since} {self._moved(alone)} by this look alone, over all looks not for certain",
            )
        held = f"{since} the {self.name} has not improved for certain: {self._change(gained)}"
        return "stop", best, held

    def _of(self, i: int) -> Values:
        found = self.values[i]
        assert found is not None
        return found

    def _moved(self, change: Interval) -> str:
        rose = (change.mean > 0) != self.turned
        size = sorted(abs(x) for x in change.ends)
        return (
            f"the {self.name} of held-out rows {'rose' if rose else 'fell'} by {abs(change.mean):.3g} "
            f"({size[0]:.3g} to {size[1]:.3g})"
        )

    def _change(self, change: Interval) -> str:
        sign = -1.0 if self.turned else 1.0
        low, high = sorted(sign * x for x in change.ends)
        return f"it changed by {sign * change.mean:.3g} ({low:.3g} to {high:.3g})"
