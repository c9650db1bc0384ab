"""Certificates: typed, scoped answers. A search refutes or does not; only a bound verifies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from equilibrist.certificates import Statement, Tolerance, Verdict
from equilibrist.core.game import Players
from equilibrist.display import Rows, Shown, shortened
from equilibrist.errors import RequirementError

__all__ = ["Certificate", "Statement", "Tolerance", "Verdict", "both"]


@dataclass(frozen=True, repr=False)
class Certificate(Shown, Statement):
    """A `Statement` of an audit, whose witness is a tree of tensors by player."""

    witness: Players | None = field(default=None, repr=False, compare=False)

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
