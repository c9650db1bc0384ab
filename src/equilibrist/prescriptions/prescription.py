"""What a trial of changes found."""

from __future__ import annotations

from dataclasses import dataclass, field

from equilibrist.certificates import Json
from equilibrist.display import Rows, Shown
from equilibrist.statistics import Estimate


@dataclass(frozen=True)
class Tried:
    """One change.

    Attributes:
        name: of the change.
        cost: minibatch gradients of one of its rounds.
        rounds: of its last branches: those that judge, or the one that dropped it.
        selected: the quantity at the end of each branch that chose among the changes; None where it was not finite.
        effect: the quantity less that of the branch without a change, over the seeds that judge; None for a change
            that was dropped before.
        after: the quantity at the end of the branches that judge, their mean.
        failed: branches that met numbers that are not finite.
        beside: the same effect on what is measured beside the quantity.
    """

    name: str
    cost: float
    rounds: int = 0
    selected: tuple[float | None, ...] = ()
    effect: Estimate | None = None
    after: float | None = None
    failed: int = 0
    beside: Estimate | None = None

    def describe(self) -> Json:
        """Plain values."""
        estimates = {"effect": self.effect, "beside": self.beside}
        return vars(self) | {k: None if v is None else v.to_json() for k, v in estimates.items()}


@dataclass(frozen=True, repr=False)
class Prescription(Shown):
    """The change that helped, or that none did.

    Attributes:
        change: its name; None where none lowers the quantity for certain.
        quantity: what is to fall, in words.
        before: the quantity at the audited state.
        unchanged: at the end of the branches that judge without a change, their mean.
        tried: every change, the best first.
        gradients: what was spent in all, in minibatch gradients.
        confidence: of the effects' intervals, all of them together.
        own_cost: minibatch gradients of a round without a change.
        other: what was measured beside the quantity; empty where nothing was.
    """

    change: str | None
    quantity: str
    before: float
    unchanged: float
    tried: tuple[Tried, ...]
    gradients: int
    unit: str = ""
    confidence: float = 0.95
    own_cost: float = 0.0
    other: str = ""
    notes: tuple[str, ...] = ()
    about: Json = field(default_factory=dict)

    @property
    def best(self) -> Tried | None:
        """The change that did best on the seeds that judge."""
        judged = [t for t in self.tried if t.effect is not None]
        return judged[0] if judged else None

    @property
    def sentence(self) -> str:
        """The finding."""
        best = self.best
        if best is None or best.effect is None:
            return "No change could be judged: on some seed every one ended with numbers that are not finite."
        effect, after = best.effect, self._number(best.after)
        if self.change is None:
            if len(self.tried) == 1:
                return (
                    f"The change that was tried, {best.name}, does not lower the {self.quantity} for certain: it "
                    f"changed it by {self._span(effect)}."
                )
            return (
                f"None of the {len(self.tried)} changes lowers the {self.quantity} for certain: the best, "
                f"{best.name}, changed it by {self._span(effect)}."
            )
        return (
            f"Change to {best.name}: the {self.quantity} ends at {after} instead of "
            f"{self._number(self.unchanged)}, a change of {self._span(effect)}{self._price(best)}{self._beside(best)}."
        )

    def _number(self, value: float | None) -> str:
        return "not finite" if value is None else f"{value:.3g} {self.unit}".rstrip()

    def _span(self, effect: Estimate) -> str:
        ends = "" if effect.low is None else f" ({effect.low:.3g} to {effect.high:.3g})"
        return f"{effect.mean:.3g} {self.unit}".rstrip() + f"{ends}, {effect.n} seeds"

    def _price(self, best: Tried) -> str:
        if not self.own_cost or abs(best.cost - self.own_cost) < 1e-9:
            return "; a round costs as much as before"
        return f"; a round costs {best.cost / self.own_cost:.2g} times as much, with as many gradients in all"

    def _beside(self, one: Tried) -> str:
        """What else the change did: a gap may close while samples get worse."""
        found = one.beside
        if found is None or found.low is None or found.high is None:
            return ""
        how = (
            "rises" if found.low > 0 else "falls" if found.high < 0 else "does not move for certain"
        )
        return f"; the {self.other} {how}: {found.mean:.3g} ({found.low:.3g} to {found.high:.3g})"

    def _facts(self) -> tuple[str, Rows]:
        rows = [("before", self._number(self.before)), ("no change", self._number(self.unchanged))]
        for one in self.tried:
            if one.effect is not None:
                text = (
                    f"{self._number(one.after)}, effect {self._span(one.effect)}{self._beside(one)}"
                )
            else:
                seen = ["not finite" if v is None else f"{v:.3g}" for v in one.selected]
                text = f"dropped at {', '.join(seen)}"
            rows.append((one.name, text))
        rows.append(("spent", f"{self.gradients:,} minibatch gradients"))
        rows += [("note", note) for note in self.notes]
        return self.sentence, rows

    def describe(self) -> Json:
        """Plain values, as prescription.json has them."""
        return {
            "format": 1,
            "change": self.change,
            "sentence": self.sentence,
            "quantity": self.quantity,
            "unit": self.unit,
            "other": self.other,
            "before": self.before,
            "unchanged": self.unchanged,
            "tried": [one.describe() for one in self.tried],
            "gradients": self.gradients,
            "confidence": self.confidence,
            "notes": list(self.notes),
            **self.about,
        }
