"""Certificates: typed, scoped answers. A search refutes or does not; only a bound verifies."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from equilibrist.certificates import Json, Statement, Tolerance, Verdict
from equilibrist.core.game import Players
from equilibrist.display import Rows, Shown, shortened
from equilibrist.errors import RequirementError

__all__ = [
    "Certificate",
    "Json",
    "Statement",
    "Tolerance",
    "Verdict",
    "combined",
    "least_settled",
    "not_assessed",
    "of_all_players",
]


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


def _brief(value: object) -> str:
    if isinstance(value, list | tuple):
        return " to ".join(map(_brief, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def not_assessed(claim: str, why: str, **fields: Any) -> Certificate:
    """The certificate of a claim that cannot be assessed here; `fields` as `Certificate` takes them."""
    player = claim.partition("/")[2] or None
    summary = f"Not assessed: {why}."
    return Certificate(claim, Verdict.UNASSESSED, summary, **{"player": player, **fields})


# What a claim of all players says, by its verdict: the first two go before the summary of the part that decides.
WHOLE: dict[str, dict[Verdict, str]] = {
    "stationary": {
        Verdict.REFUTED: "Training has not come to rest. ",
        Verdict.UNASSESSED: "Cannot tell whether training has come to rest. ",
        Verdict.NOT_REFUTED: "No player is seen to move, within what the noise allows to see.",
        # No word of training: the weights of a pair that was never trained may be as small as their slopes.
        Verdict.VERIFIED: "At rest, to first order: no player's small move down its gradient promises more than the "
        "tolerance.",
    },
    "local-nash": {
        Verdict.REFUTED: "Not a local Nash equilibrium. ",
        Verdict.UNASSESSED: "Cannot tell whether this is a local Nash equilibrium. ",
        Verdict.NOT_REFUTED: "No player was found to gain more than the tolerance by a small move alone, to second "
        "order.",
        Verdict.VERIFIED: "A local Nash equilibrium: no player gains by any small move alone.",
    },
    "nash": {
        Verdict.REFUTED: "Not a Nash equilibrium. ",
        Verdict.UNASSESSED: "Cannot tell whether this is a Nash equilibrium: ",
        Verdict.NOT_REFUTED: "No player was found to gain more than the tolerance by deviating alone, within the "
        "stated budget.",
        Verdict.VERIFIED: "A Nash equilibrium: no player's best response gains more than the tolerance.",
    },
}


def least_settled(verdicts: Iterable[Verdict]) -> Verdict:
    """The verdict on all of several claims: refuted if one is, verified if all are."""
    order = (Verdict.REFUTED, Verdict.UNASSESSED, Verdict.NOT_REFUTED, Verdict.VERIFIED)
    return min(verdicts, key=order.index)


def of_all_players(
    claim: str, parts: Sequence[Certificate], effects: Sequence[float] = (0.0, 0.0)
) -> Certificate:
    """`both` in the words of `WHOLE`, led by the part of the largest effect among those that decide."""
    verdict = least_settled(part.verdict for part in parts)
    those = [pair for pair in zip(effects, parts, strict=True) if pair[1].verdict is verdict]
    reported = max(those, key=lambda pair: pair[0])[1].summary
    open_ = verdict in (Verdict.REFUTED, Verdict.UNASSESSED)
    return combined(claim, parts, WHOLE[claim][verdict] + (reported if open_ else ""))


def combined(claim: str, parts: Sequence[Certificate], summary: str) -> Certificate:
    """The claim that holds iff it holds of every player: refuted if one part is, verified if all are."""
    return Certificate(
        claim,
        least_settled(part.verdict for part in parts),
        summary,
        {part.claim: part.verdict.value for part in parts},
        scope={k: v for k, v in parts[0].scope.items() if k != "player"},
        references=parts[0].references,
    )
