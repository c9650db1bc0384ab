"""What an audit of a critic alone returns."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from equilibrist.certificates import Json
from equilibrist.checks import Audit, Settings, Verdict, write_folder
from equilibrist.critics._findings import critic_findings, established
from equilibrist.data import Source
from equilibrist.findings import Finding, ordered, weighed

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
        columns: of the input, those that tell generated samples from real ones by themselves, the largest effect first:
            name, effect (share of pairs above one half), p (corrected).
        rows: of the generated samples, those that the best critic scores lowest: row (its place in what was given),
            score.
    """

    @property
    def states(self) -> tuple[str, ...]:
        """What was established of the critic, most telling first: "saturated", "smothered", "lagging", "blind",
        "memorising", "uninformative"; empty for a critic in which no fault was found."""
        return tuple(established(self.certificates))

    @property
    def findings(self) -> tuple[Finding, ...]:
        """The same as findings: what to act on first in front."""
        return ordered(weighed(critic_findings(self.certificates), own_loop=False))

    @property
    def columns(self) -> list[Json]:
        """The columns that give generated samples away."""
        return list(self["indistinguishable"].evidence["columns"])

    @property
    def rows(self) -> list[Json]:
        """The generated samples that are easiest to recognise."""
        return list(self["indistinguishable"].evidence["rows"])

    @property
    def place(self) -> str:
        """The fact that matters most, then what else was found."""
        first = [f.text for f in self.findings]
        if not first:
            apart = self["not-saturated"].evidence["separation"]
            first = [
                f"No fault was found in the critic: it orders {apart:.1%} of held-out pairs rightly{self._by_column()}."
            ]
        gain = self["best-response"]
        if gain.verdict is Verdict.REFUTED or not self.findings:
            first.append(gain.summary)
        return " ".join(first)

    def _by_column(self) -> str:
        """The column that gives generated samples away most, where one does."""
        found = self["indistinguishable"]
        if found.verdict is not Verdict.REFUTED or not self.columns:
            return ""
        first = self.columns[0]
        share = f"{0.5 + first['effect']:.0%} of pairs"
        return f", and {first['name']} by itself tells generated samples from real ones in {share}"

    @property
    def measured(self) -> tuple[str, ...]:
        """Nothing: what was measured of a critic is in its findings and certificates."""
        return ()

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
