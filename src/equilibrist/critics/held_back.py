"""Smothered or lagging: near chance in the game, although critics of the class tell the same samples apart.

What tells the two: training on under the same loss. Where that separates the samples, the critic lags behind; where it
does not and lifting the penalty does, the penalty smothers it.
"""

from __future__ import annotations

from dataclasses import dataclass

from equilibrist.certificates import Json
from equilibrist.checks import Certificate, Interval, Tolerance, Verdict, decide
from equilibrist.critics._case import TELLS, CriticCase
from equilibrist.critics._rates import missing_share

SMOTHERED, LAGGING = "not-smothered", "not-lagging"
HELD_BACK_STATES = {SMOTHERED: "smothered", LAGGING: "lagging"}
MISSING = 0.75  # of the best critic's advantage over chance: a critic without it is near chance
# Of pairs ordered rightly: below, samples or scores were probably given the wrong way round.
TURNED = 0.3
ORDERS = 0.85  # of held-out pairs: a critic that orders more rightly is not behind, whatever its margins are
BY_PENALTY = 0.5  # of that worth, which the best critic under the penalty must be without
BY_PENALTY_ALONE = 0.95  # of it: under such a penalty no critic of the class tells anything
TOLERANCE = Tolerance(
    MISSING,
    "of the best critic's advantage over chance",
    "near chance is less than a quarter of it",
)
LIMITS = (
    "critics of the same architecture, trained by the stated number of gradients: a longer search may tell more",
)


@dataclass(frozen=True)
class Nearness:
    """How near chance the critic is, beside the best that were found with its penalty and without.

    Attributes:
        under: the name of the best critic under the same loss; `free`, of the best of all.
        behind: the share of `under`'s advantage that the critic is without.
        below: the share of `free`'s that it is without.
        penalty: the share of `free`'s that `under` is without.
    """

    under: str
    free: str
    behind: Interval
    below: Interval
    penalty: Interval
    own: float
    worth_under: float
    worth_free: float
    own_separation: Interval
    under_separation: Interval
    free_separation: Interval


def nearness(case: CriticCase) -> Nearness:
    """The numbers of both states."""
    under = min(
        (("trained on", case.continued), ("fresh", case.retrained)), key=lambda e: e[1].chosen
    )[0]
    free = "freed of its penalty" if case.unpenalised is not None else under
    own, best = (case.advantage(name, case.scaled) for name in ("own", under))
    # Without its penalty a WGAN's loss has no scale: only the order of samples can be compared then.
    loose = case.bounded if case.unpenalised is not None else case.scaled
    below, under_free, freed = (case.advantage(name, loose) for name in ("own", under, free))
    c = case.of_states
    return Nearness(
        under,
        free,
        missing_share(own, best, c),
        missing_share(below, freed, c),
        missing_share(under_free, freed, c),
        float(own.mean()),
        float(best.mean()),
        float(freed.mean()),
        case.separation("own"),
        case.separation(under),
        case.separation(free),
    )


def lags(found: Nearness) -> bool:
    """Whether the critic is near chance and training it under the same loss separates the samples."""
    return _lagging(found) is Verdict.REFUTED


def held_back(case: CriticCase, found: Nearness, explained: str) -> list[Certificate]:
    """Both certificates.

    Args:
        case: the critic.
        found: its numbers.
        explained: another state that was established and explains a critic near chance ("" for none).
    """
    lagging, smothered = _lagging(found), _smothered(case, found)
    if lagging is Verdict.REFUTED and smothered is Verdict.REFUTED:
        # Both hold it back: what is missing more is named, in shares of the free critic's advantage.
        if found.penalty.mean > found.below.mean - found.penalty.mean:
            lagging = Verdict.UNASSESSED
        else:
            smothered = Verdict.UNASSESSED
    if explained:
        lagging = Verdict.UNASSESSED if lagging is Verdict.REFUTED else lagging
        # Where no critic has an advantage under the penalty, whatever else is wrong with this one does not explain it.
        if smothered is Verdict.REFUTED and not found.penalty.low > BY_PENALTY_ALONE:
            smothered = Verdict.UNASSESSED
    return [
        _certificate(case, SMOTHERED, smothered, found, explained),
        _certificate(case, LAGGING, lagging, found, explained),
    ]


def _lagging(found: Nearness) -> Verdict:
    if found.under_separation.low <= TELLS or _orders(found):
        return Verdict.NOT_REFUTED  # nothing that it could be behind of
    return decide(found.behind, MISSING).verdict


def _orders(found: Nearness) -> bool:
    """Whether it tells samples apart all the same; a loss that grows with margins is lower for a surer critic."""
    return found.own_separation.low > ORDERS


def _smothered(case: CriticCase, found: Nearness) -> Verdict:
    if not case.penalised:
        return (
            decide(found.below, MISSING).verdict
            if found.below.high < MISSING
            else Verdict.UNASSESSED
        )
    if found.free_separation.low <= TELLS:
        return Verdict.NOT_REFUTED
    verdict = decide(found.below, MISSING).verdict
    if verdict is Verdict.REFUTED and not found.penalty.low > BY_PENALTY:
        return Verdict.NOT_REFUTED if found.penalty.high < BY_PENALTY else Verdict.UNASSESSED
    return verdict


def _certificate(
    case: CriticCase, claim: str, verdict: Verdict, found: Nearness, explained: str
) -> Certificate:
    lag = claim == LAGGING
    share = found.behind if lag else found.below
    evidence: Json = {
        "missing": share.mean,
        "interval": share.ends,
        "confidence": case.of_states,
        "unit": TOLERANCE.unit,
        "advantage": found.own,
        "advantage_under_the_same_loss": found.worth_under,
        "separation": found.own_separation.mean,
        "separation_interval": found.own_separation.ends,
        "separation_under_the_same_loss": found.under_separation.mean,
        "best_under_the_same_loss": found.under,
        "budget": {"gradients": case.continued.steps + case.retrained.steps},
    }
    if case.unpenalised is not None:
        evidence |= {
            "advantage_without_penalty": found.worth_free,
            "separation_without_penalty": found.free_separation.mean,
            "missing_under_the_penalty": found.penalty.mean,
            "missing_under_the_penalty_interval": found.penalty.ends,
        }
        evidence["budget"] = {
            "gradients": case.continued.steps + case.retrained.steps + case.unpenalised.steps
        }
    return Certificate(
        claim,
        verdict,
        _summary(case, claim, verdict, found, explained),
        evidence,
        TOLERANCE,
        case.scope(),
        LIMITS,
        player="critic",
    )


def _percent(share: float) -> str:
    """Whole percents, without a minus sign before nothing."""
    shown = f"{share:.0%}"
    return "0%" if shown == "-0%" else shown


def _hint_of_wrong_sign(found: Nearness) -> str:
    """A word on a critic that is far from chance on the wrong side."""
    if found.own_separation.high > TURNED:
        return ""
    return (
        f" It scores generated samples above real ones in {1 - found.own_separation.mean:.0%} of pairs: are real and "
        "fake, or the sign of its score, the wrong way round?"
    )


def _summary(
    case: CriticCase, claim: str, verdict: Verdict, found: Nearness, explained: str
) -> str:
    lag = claim == LAGGING
    state = HELD_BACK_STATES[claim]
    share = found.behind if lag else found.below
    if share.mean < 0 and verdict is Verdict.NOT_REFUTED:
        return f"Not {state}: it tells real from generated no worse than the best critic that was found."
    near = (
        f"it has {_percent(1 - share.mean)} ({_percent(1 - share.high)} to {_percent(1 - share.low)}) of the best "
        "critic's advantage over chance"
    )
    other = found.under if lag else found.free
    who = {
        "trained on": "the same critic, trained on under the same loss,",
        "fresh": "a fresh critic of its class under the same loss",
        "freed of its penalty": "a critic of its class without the penalty",
    }[other]
    apart = (found.under_separation if lag else found.free_separation).mean
    if verdict is Verdict.REFUTED:
        rest = (
            ""
            if lag
            else f", and under the penalty no critic has more than {_percent(1 - found.penalty.mean)} of it"
        )
        return (
            f"The critic is {state}: {near}, while {who} separates {apart:.1%} of held-out pairs{rest}."
            f"{_hint_of_wrong_sign(found)}"
        )
    if explained and share.low > MISSING:
        return f"Not assessed: the critic is near chance, but it is {explained}, which explains it."
    if verdict is Verdict.UNASSESSED and not lag and not case.penalised:
        return "Not assessed: the critic is near chance, and no penalty was named that could be lifted (penalties=)."
    if verdict is Verdict.UNASSESSED:
        return f"Cannot tell whether the critic is {state}: {near}."
    if apart <= TELLS or (found.under_separation if lag else found.free_separation).low <= TELLS:
        return (
            f"Not {state}, as far as the search reaches: {who} does not tell the samples apart either ({apart:.1%} of "
            "pairs)."
        )
    if lag and _orders(found) and share.low > MISSING:
        return (
            f"Not {state}: it orders {found.own_separation.mean:.1%} of held-out pairs rightly, by smaller margins "
            f"than the best critic ({near})."
        )
    if not lag and verdict is Verdict.NOT_REFUTED and share.low > MISSING:
        return f"Not {state}: the critic is near chance, but not by its penalty ({near})."
    return f"Not {state}: {near}."
