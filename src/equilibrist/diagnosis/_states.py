"""Findings from the audit of a critic: the states that it names, in a practitioner's order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from equilibrist.certificates import STATES
from equilibrist.checks import Certificate, Verdict
from equilibrist.critics import CriticAudit
from equilibrist.diagnosis._outcome import Outcome
from equilibrist.findings import Finding, numbers_of

CHANCE = 0.15  # around one half: a critic whose order of held-out pairs is there is at chance
SURE = 0.98  # share of pairs ordered rightly, from which a critic separates nearly all
UNSEEN = 1e-4  # of the scores' spread: a part that moves them less is not in the network's reach
SHARE = 0.9  # of the looks in the second half
STILL = 0.8  # of the first distance to the data: samples that stay above have not got nearer
SLOW = 0.5  # of the generator's relative travel: a critic below is the slower player
LONG = 300  # rounds before which players pass through all states
HELD = 0.1  # of the best advantage: a critic that is held back below it
CERTAIN = 0.99  # share of pairs ordered rightly, of a critic that tells all along where samples get no nearer


@dataclass(frozen=True)
class Way:
    """How a game went, as a verdict about a player needs it.

    Attributes:
        outcome: looks on the way.
        travel: the critic's relative travel over the generator's, in the first rounds.
        rounds: that were run.
        penalised: whether the critic pays a penalty.
    """

    outcome: Outcome
    travel: float
    rounds: int
    penalised: bool

    @property
    def orders(self) -> list[float]:
        """Of the second half's looks."""
        return [look.order for look in self.outcome.late if look.order is not None]

    @property
    def still(self) -> bool:
        """Whether samples have not got nearer to the data."""
        progress = self.outcome.progress
        return progress is not None and progress > STILL


def states(found: CriticAudit, where: str, way: Way) -> list[Finding]:
    """What was established of a critic's state, as findings.

    An audit judges one moment. What is found then is a fault where the game's way there agrees: a critic that is at
    chance throughout, or separates nearly all samples throughout. Otherwise it is a note, for players that go round
    one another pass through all of these states.
    """
    by = {c.claim: c for c in found.certificates if c.verdict is Verdict.REFUTED}
    seen = {state: by[claim] for claim, state in STATES.items() if claim in by}
    flat = "uninformative" in seen
    if "saturated" not in seen and way.still:
        # The generator gets nowhere, and the critic tells its samples all along.
        if flat and _separates(way.orders):
            seen["saturated"] = seen["uninformative"]
        elif len(way.orders) >= 4 and min(way.orders) > CERTAIN:
            seen["saturated"] = found["not-saturated"]
    if "lagging" in seen and "smothered" not in seen and flat and way.penalised:
        seen["smothered"] = seen.pop("lagging")
    return [
        _finding(state, certificate, where, way, flat)
        for state, certificate in seen.items()
        if state != "uninformative"
    ]


def _finding(state: str, certificate: Certificate, where: str, way: Way, flat: bool) -> Finding:
    evidence = numbers_of(certificate.evidence)
    evidence |= {"orders": [round(o, 3) for o in way.orders], "progress": way.outcome.progress}
    lasting = _lasting(state, certificate, way, flat)
    text = certificate.summary
    if state == "saturated" and way.orders:
        text = f"The critic orders {min(way.orders):.0%} of held-out pairs or more all along"
        more = f": {certificate.summary}" if certificate.verdict is Verdict.REFUTED else ""
        near = (
            ""
            if more
            else f", and samples get no nearer (distance {way.outcome.progress:.2g} of the first)."
        )
        text += more + near
    if state == "smothered" and "lagging" in certificate.summary:
        text = (
            "The critic pays a penalty, what it hands the generator hardly varies, and samples get no nearer. "
            + certificate.summary
        )
    return Finding(
        state,
        where,
        text,
        level="fault" if lasting else "note",
        sure="likely" if lasting else "possible",
        evidence=evidence,
    )


def _separates(orders: Sequence[float]) -> bool:
    return len(orders) >= 4 and sum(o > SURE for o in orders) >= SHARE * len(orders)


def _lasting(state: str, certificate: Certificate, way: Way, flat: bool) -> bool:
    """Whether the game's way agrees with what was found at its end."""
    orders = way.orders
    if way.rounds < LONG:
        return False
    if state == "memorising":
        return True
    if state == "blind":
        depends = certificate.evidence.get("depends")
        return isinstance(depends, float) and depends < UNSEEN
    if state == "saturated":
        return _separates(orders)
    if state == "smothered":
        advantage = certificate.evidence.get("advantage")
        return flat and way.still and isinstance(advantage, float) and advantage < HELD
    if state == "lagging" and len(orders) >= 4:
        throughout = sum(o < 0.5 + CHANCE for o in orders) >= SHARE * len(orders)
        mean = sum(orders) / len(orders) < 0.5 + CHANCE
        # Near the data a critic is at chance because the samples are good.
        return way.still and (throughout or (mean and way.travel < SLOW))
    return False
