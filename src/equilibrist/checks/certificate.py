"""Certificates: typed, scoped answers. A search refutes or does not; only a bound verifies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NoReturn

from equilibrist.core.game import Players
from equilibrist.display import Rows, Shown, shortened
from equilibrist.errors import RequirementError


class Verdict(Enum):
    """What is known of a claim.

    VERIFIED: an exhaustive or bounded computation shows it. REFUTED: a witness shows the contrary.
    NOT_REFUTED: a search under the stated budget found nothing. UNASSESSED: cannot be told (noise
    above the tolerance, a non-finite value, a failed search).
    """

    VERIFIED = "VERIFIED"
    REFUTED = "REFUTED"
    NOT_REFUTED = "NOT_REFUTED"
    UNASSESSED = "UNASSESSED"


@dataclass(frozen=True)
class Tolerance:
    """How much is called nothing: a value, its unit, and where it comes from."""

    value: float
    unit: str
    why: str


@dataclass(frozen=True, repr=False)
class Certificate(Shown):
    """A claim about where training landed.

    Attributes:
        claim: "stationary", "nash", or either of one player ("nash/critic").
        verdict: see `Verdict`.
        summary: one sentence for practitioners.
        evidence: numbers, plain values.
        tolerance: what the numbers were held against.
        scope: the game, iterate, precision and data that the claim is about.
        limits: what it does not say.
        references: sources of the method.
        witness: for a refuted claim, what refutes it.
        witness_kind: "deviation" (a player's parameters) or "direction" (unit directions, by player).
    """

    claim: str
    verdict: Verdict
    summary: str
    evidence: dict[str, Any] = field(default_factory=dict)
    tolerance: Tolerance | None = None
    scope: dict[str, Any] = field(default_factory=dict)
    limits: tuple[str, ...] = ()
    references: tuple[str, ...] = ()
    player: str | None = None
    witness: Players | None = field(default=None, repr=False, compare=False)
    witness_kind: str = "deviation"

    def _facts(self) -> tuple[str, Rows]:
        rows = [("says", shortened(self.summary, 300))]
        for name in ("gain", "residual", "gap", "lambda_star"):
            if name in self.evidence:
                unit = self.tolerance.unit if self.tolerance else ""
                rows.append((name, f"{_brief(self.evidence[name])} {unit}".rstrip()))
        if self.tolerance is not None:
            rows.append(("tolerance", f"{self.tolerance.value:.3g} {self.tolerance.unit}"))
        if self.evidence:
            rows.append(("evidence", shortened(", ".join(self.evidence))))
        return f"Certificate {self.claim}: {self.verdict.value}", rows

    def require(self, verified: bool = False) -> Certificate:
        """Itself, if the claim is verified or (unless `verified`) at least not refuted by search;
        else RequirementError with the summary."""
        passing = {Verdict.VERIFIED} if verified else {Verdict.VERIFIED, Verdict.NOT_REFUTED}
        if self.verdict not in passing:
            raise RequirementError(f"{self.claim} is {self.verdict.value}: {self.summary}")
        return self

    def __bool__(self) -> NoReturn:
        raise TypeError(
            "a certificate is not true or false: look at .verdict (four values), or call .require()"
        )


def _brief(value: Any) -> str:
    if isinstance(value, list | tuple):
        return " to ".join(map(_brief, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def both(claim: str, parts: Sequence[Certificate], summary: str) -> Certificate:
    """The claim that holds iff it holds of every player: refuted if one part is, verified if all are."""
    verdicts = [part.verdict for part in parts]
    if Verdict.REFUTED in verdicts:
        verdict = Verdict.REFUTED
    elif Verdict.UNASSESSED in verdicts:
        verdict = Verdict.UNASSESSED
    elif Verdict.NOT_REFUTED in verdicts:
        verdict = Verdict.NOT_REFUTED
    else:
        verdict = Verdict.VERIFIED
    return Certificate(
        claim,
        verdict,
        summary,
        {part.claim: part.verdict.value for part in parts},
        scope={k: v for k, v in parts[0].scope.items() if k != "player"},
        references=parts[0].references,
    )
