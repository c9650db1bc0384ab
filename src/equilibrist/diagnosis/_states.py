"""Findings from the audit of a critic: the states that it names, in a practitioner's order."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from equilibrist.certificates import STATES
from equilibrist.checks import Certificate, Verdict
from equilibrist.critics import CriticAudit
from equilibrist.diagnosis._outcome import Outcome
from equilibrist.findings import Finding, numbers_of

CHANCE = 0.15  # around one half: a critic whose order of held-out pairs is there is at chance
SURE = 0.98  # share of pairs ordered rightly, from which a critic separates nearly all
CERTAIN = 0.99  # the same, of a critic that tells all along where samples get no nearer
UNSEEN = 1e-4  # of the scores' spread: a part that moves them less is not in the network's reach
SHARE = 0.9  # of the looks in the second half
STILL = 0.8  # of the first distance to the data: samples that stay above have not got nearer
FAR = 0.5  # of it, in the second half: samples that are still far from the data
SLOW = 0.2  # of the generator's relative travel: a critic below is much the slower player
FAST = 10.0  # times it: a critic above is much the quicker one
LONG = 300  # rounds before which players pass through all states
SHORT = 150  # the same, of what does not pass: weights that hardly move, penalties, unseen parts
CEILING = 0.025  # of the best critic's advantage: a penalty under which none of the class has more
APART = 0.8  # share of pairs that a critic without the penalty orders rightly
HELD = 0.1  # of the best advantage: a critic that is held back below it


@dataclass(frozen=True)
class Way:
    """How a game went, as a verdict about a player needs it.

    Attributes:
        outcome: looks on the way.
        travels: the critic's travel over the generator's, each relative to its weights, in the first rounds and in the
            last; without those in which one of them stood still.
        rounds: that were run.
        penalised: whether the critic pays a penalty.
        old: the age in rounds of the generated samples that the critic is trained on, where all are old.
    """

    outcome: Outcome
    travels: tuple[float, ...]
    rounds: int
    penalised: bool
    old: float | None = None

    @property
    def orders(self) -> list[float]:
        """Of the second half's looks."""
        return [look.order for look in self.outcome.late if look.order is not None]

    @property
    def still(self) -> bool:
        """Whether samples have not got nearer to the data."""
        progress = self.outcome.progress
        return progress is not None and progress > STILL

    @property
    def far(self) -> bool:
        """Whether samples are far from the data in the second half, and at its end."""
        away, progress = self.outcome.away, self.outcome.progress
        return away is not None and progress is not None and min(away, progress) > FAR

    @property
    def slow(self) -> bool:
        """Whether the critic moves by a small part of what the generator does."""
        return bool(self.travels) and max(self.travels) < SLOW

    @property
    def fast(self) -> bool:
        """Whether the critic moves by far more than the generator does."""
        return any(travel > FAST for travel in self.travels)

    @property
    def separates(self) -> bool:
        """Whether the critic orders nearly all held-out pairs, in nearly all looks."""
        return self._share(lambda order: order > SURE)

    @property
    def at_chance(self) -> bool:
        """Whether it orders no more than chance does, in nearly all looks."""
        return self._share(lambda order: order < 0.5 + CHANCE)

    def _share(self, holds: Callable[[float], bool]) -> bool:
        return len(self.orders) >= 4 and sum(map(holds, self.orders)) >= SHARE * len(self.orders)

    def describe(self) -> str:
        """The numbers, in words."""
        orders = self.orders
        text = f"the critic orders {min(orders):.0%} to {max(orders):.0%} of held-out pairs rightly"
        if self.slow or self.fast:
            ends = sorted({f"{t:.2g}" for t in self.travels}, key=float)
            text += f", moves {' to '.join(ends)} times as far as the generator"
        away = self.outcome.away
        return text + (
            "" if away is None else f", and samples are at {away:.2g} of their first distance"
        )


def states(found: CriticAudit | None, where: str, way: Way) -> list[Finding]:
    """What was established of a critic's state, as findings.

    An audit judges one moment. What is found then is a fault where the game's way there agrees: a critic that is at
    chance throughout, or separates nearly all samples throughout, or is much the slower or quicker player while samples
    stay far from the data. Otherwise it is a note, for players that go round one another pass through all of these
    states.

    Args:
        found: the audit of the critic at the end; None where it could not be had.
        where: the critic's name.
        way: how the game went.

    Returns:
        The findings.
    """
    by = {c.claim: c for c in found.certificates} if found is not None else {}
    seen: dict[str, Certificate | None] = {
        state: by[claim]
        for claim, state in STATES.items()
        if claim in by and by[claim].verdict is Verdict.REFUTED
    }
    flat = seen.pop("uninformative", None)
    if "saturated" not in seen and _far_ahead(way, flat is not None):
        seen["saturated"] = flat
    if "lagging" not in seen and way.slow and way.far and not way.separates:
        seen["lagging"] = None
    held = "lagging" in seen and "smothered" not in seen and way.penalised and not way.slow
    if held and flat is not None:
        seen["smothered"] = seen.pop("lagging")
    same = [f for f in found.findings if f.name == "constant-score"] if found is not None else []
    return [replace(f, where=where) for f in same] + [
        _finding(state, found, where, way, flat is not None) for state, found in seen.items()
    ]


def _far_ahead(way: Way, flat: bool) -> bool:
    """Whether the critic tells samples all along that do not get nearer, or is much the quicker of the two."""
    if way.separates and way.far and way.fast:
        return True
    if not way.still:
        return False
    return (flat and way.separates) or (len(way.orders) >= 4 and min(way.orders) > CERTAIN)


def _finding(state: str, found: Certificate | None, where: str, way: Way, flat: bool) -> Finding:
    evidence = {} if found is None else numbers_of(found.evidence)
    evidence |= {
        "orders": [round(o, 3) for o in way.orders],
        "progress": way.outcome.progress,
        "away": way.outcome.away,
        "travels": [round(t, 3) for t in way.travels],
    }
    lasting = _lasting(state, found, way, flat)
    texts = [] if found is None else [found.summary]
    if (lasting and state in ("saturated", "lagging")) or not texts:
        texts.insert(0, f"In the second half {way.describe()}.")
    if state == "lagging" and way.old is not None:
        old = f"The critic is trained on generated samples that were made {way.old:.0f} rounds before."
        texts.insert(0, old)
        evidence["age"] = way.old
    if state == "smothered" and found is not None and found.claim != "not-smothered":
        texts.insert(
            0,
            "The critic pays a penalty, what it hands the generator hardly varies, and samples get no nearer.",
        )
    return Finding(
        state,
        where,
        " ".join(texts),
        level="fault" if lasting else "note",
        sure="likely" if lasting else "possible",
        evidence=evidence,
    )


def _lasting(state: str, found: Certificate | None, way: Way, flat: bool) -> bool:
    """Whether the game's way agrees with what was found at its end."""
    evidence = {} if found is None else found.evidence
    long = way.rounds >= LONG
    if way.rounds < SHORT:
        return False
    if state == "memorising":
        return True
    if state == "blind":
        depends = evidence.get("depends")
        return isinstance(depends, float) and depends < UNSEEN
    if state == "saturated":
        return way.separates and (long or way.far)
    if state == "smothered":
        held = flat and way.still and _below(evidence, HELD)
        # A critic that hardly moves is at chance whatever it pays.
        # Near the data a critic is at chance because the samples are good.
        return (_by_its_penalty(evidence) and not way.outcome.near) or (
            long and held and not (way.slow and way.far)
        )
    if state == "lagging":
        # Near the data a critic is at chance because the samples are good.
        return (
            (long and way.still and way.at_chance) or (way.slow and way.far) or way.old is not None
        )
    return False


def _by_its_penalty(evidence: Mapping[str, object]) -> bool:
    """Whether no critic of its class has an advantage under the penalty, and without it one separates."""
    missing = evidence.get("missing_under_the_penalty_interval")
    apart = evidence.get("separation_without_penalty")
    return (
        isinstance(missing, list | tuple)
        and isinstance(apart, float)
        and float(missing[0]) > 1 - CEILING
        and apart > APART
    )


def _below(evidence: Mapping[str, object], share: float) -> bool:
    advantage = evidence.get("advantage")
    return isinstance(advantage, float) and advantage < share
