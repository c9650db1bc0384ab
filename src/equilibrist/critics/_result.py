"""What an audit of a critic alone returns."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from equilibrist.certificates import STATES, Json
from equilibrist.checks import Audit, Settings, Verdict, write_folder
from equilibrist.data import Source

_USED = ("batch", "confidence", "tolerance", "absolute", "gradients")


@dataclass(frozen=True)
class CriticSettings(Settings):
    """The settings of an audit that a critic's has: batch, confidence, tolerance, absolute, gradients."""

    def describe(self) -> Json:
        """Plain values."""
        return {name: getattr(self, name) for name in _USED}


@dataclass(frozen=True, repr=False)
class CriticAudit(Audit):
    """Certificates about a critic by claim, as an `Audit` is.

    Attributes:
        columns: of the input, those that tell generated samples from real ones by themselves, most telling first:
            name, effect (share of pairs above one half), p (corrected).
        rows: of the generated samples, those that the best critic is surest of: row (its place in what was given),
            score.
    """

    @property
    def states(self) -> tuple[str, ...]:
        """What was established of the critic, most telling first: "saturated", "smothered", "lagging", "blind",
        "memorising", "uninformative"; empty for a critic in which no fault was found."""
        by = {c.claim: c.verdict for c in self.certificates}
        return tuple(s for claim, s in STATES.items() if by.get(claim) is Verdict.REFUTED)

    @property
    def columns(self) -> list[Json]:
        """The columns that betray generated samples."""
        return list(self["indistinguishable"].evidence["columns"])

    @property
    def rows(self) -> list[Json]:
        """The generated samples that are betrayed most."""
        return list(self["indistinguishable"].evidence["rows"])

    @property
    def place(self) -> str:
        """The fact that matters most, then what else was found."""
        by = {c.claim: c for c in self.certificates}
        found = [by[claim] for claim, state in STATES.items() if state in self.states]
        first = [c.summary for c in found]
        if not first:
            apart = by["not-saturated"].evidence["separation"]
            first = [
                f"No fault was found in the critic: it orders {apart:.1%} of held-out pairs rightly{self._betrays()}."
            ]
        gain = by["best-response"]
        if gain.verdict is Verdict.REFUTED or not found:
            first.append(gain.summary)
        return " ".join(first)

    def _betrays(self) -> str:
        """The column that gives generated samples away most, where one does."""
        told = self["indistinguishable"]
        if told.verdict is not Verdict.REFUTED or not self.columns:
            return ""
        first = self.columns[0]
        share = f"{0.5 + first['effect']:.0%} of pairs"
        return f", and {first['name']} by itself tells generated samples from real ones in {share}"

    @property
    def advice(self) -> tuple[str, ...]:
        """Which changes fit what was established."""
        return tuple(ADVICE[state] for state in self.states)

    def save(
        self,
        directory: Path,
        data: Source | None = None,
        witnesses: dict[str, dict[str, torch.Tensor]] | None = None,
    ) -> None:
        """Write audit.json and the witnesses into the folder `directory`, whole or not at all.

        Args:
            directory: the folder; files of others in it stay.
            data: not needed: there are no sheets of samples.
            witnesses: state_dicts by claim in the place of the certificates' own.
        """
        write_folder(
            Path(directory),
            self.to_json(),
            self.certificates,
            witnesses or {},
            {},
            lambda sheet: ("", b""),
        )


ADVICE = {
    "saturated": (
        "A saturated critic: fewer critic steps, a gradient penalty (or a heavier one), a lower step size, noise on "
        "its input, or a reward that goes on falling (softplus of the score, say) give the generator its signal back."
    ),
    "smothered": "A smothered critic: lower the penalty's weight until the critic separates what it can.",
    "lagging": (
        "A lagging critic: more critic steps, a higher step size, or newer generated samples in its batches; it "
        "separates these samples when it is trained on them."
    ),
    "blind": (
        "A blind critic: look at what becomes of these columns on their way into it (a mask, a scale that makes them "
        "tiny, a column left out)."
    ),
    "memorising": (
        "A memorising critic: more training samples, augmentation of real and generated ones alike, a smaller critic "
        "or fewer steps on the same rows."
    ),
    "uninformative": (
        "The reward is flat: another function of the score, or a critic in another state, is needed before the "
        "generator can learn from it."
    ),
}
