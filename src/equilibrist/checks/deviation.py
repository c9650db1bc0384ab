"""Is the pair a Nash equilibrium? Freeze one player, optimise the other, score what it gained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from equilibrist import tree
from equilibrist.checks._decide import Decision, Interval, Reason, decide
from equilibrist.checks._objective import FORWARD
from equilibrist.checks._search import SearchOutcome, search_deviation
from equilibrist.checks.certificate import Certificate, Json, Tolerance, Verdict, of_all_players
from equilibrist.checks.context import AuditContext, Show, Tick, no_tick, rows_in

REFERENCES = (
    "Farnia and Ozdaglar 2020, section 2, problem (5)",
    "Nash equilibrium: Farnia and Ozdaglar 2020, inequalities (2)",
    "Successive halving: Jamieson and Talwalkar 2016",
)
KINDS = {
    "gradient": "down its gradient",
    "curvature": "along its most negative curvature",
    "rescaling": "by rescaling one tensor",
    "random": "in random directions",
}


def nash(
    context: AuditContext,
    tick: Tick = no_tick,
    show: Show | None = None,
) -> tuple[list[Certificate], dict[str, torch.Tensor]]:
    """Certificates "nash/<player>" and "nash", and the generator's samples before, during and after
    its chosen deviation (from `show(players, constants)`).

    For each player: a search (`_search.search_deviation`) of `starts` * `steps` minibatch gradients on
    the first part of the data, the other player frozen, every point projected into the feasible set, singular
    vectors exact throughout; the best of all looks on the second part is chosen (staying put is a candidate);
    the third part scores it, by paired differences over common batches.

    REFUTED: the interval's lower end is above the tolerance; the deviation is the witness.
    UNASSESSED: every descent failed, half the interval is wider than the tolerance, the interval holds the
    tolerance while the estimate is above it, or the search was still gaining when its budget ended.
    NOT_REFUTED: otherwise, with the distance to which each kind of direction was searched. A search cannot
    verify.
    """
    sheets: dict[str, torch.Tensor] = {}
    parts = []
    for player in context.game.players:
        tolerance = context.tolerance(player=player)
        shown = show if player == "generator" else None
        outcome = search_deviation(context, player, budget(context), tolerance.value, tick, shown)
        parts.append(_certificate(context, player, outcome, tolerance))
        tick(2 * _scoring(context))
        if shown is not None:
            sheets = _sheets(outcome, shown(context.players, context.constants))
    return [*parts, of_all_players("nash", parts, gains_of(parts))], sheets


def gains_of(parts: Sequence[Certificate]) -> list[float]:
    """What refuted parts gain, 0 for the others: the largest gain tells that a pair is no Nash equilibrium."""
    return [c.evidence["gain"] if c.verdict is Verdict.REFUTED else 0.0 for c in parts]


def budget(context: AuditContext) -> float:
    """Minibatch gradients for the search of one player."""
    return float(context.settings.starts * context.settings.steps)


def planned_gradients(context: AuditContext) -> float:
    """Planned minibatch gradients."""
    return len(context.game.players) * (budget(context) + 2 * _scoring(context))


def _scoring(context: AuditContext) -> float:
    """What one pass over the score split costs."""
    rows = sum(map(rows_in, context.bank("score")))
    return FORWARD * max(rows / context.settings.batch, 1.0)


def gain(
    context: AuditContext, player: str, deviation: dict[str, torch.Tensor], part: str
) -> torch.Tensor:
    """Loss before minus loss after the deviation, on every batch of a part's bank, float64."""
    before = context.losses(player, context.players, context.constants, part)
    return before - context.losses(
        player, {**context.players, player: deviation}, context.constants, part
    )


@dataclass(frozen=True)
class BestDeviation:
    """The best deviation of one player that a search found, by what it gains on the score part.

    Attributes:
        gains: loss before less loss after, on every batch, float64 [batches]; zeros where nothing better was found, and
            NaN where the player's loss is NaN or every descent failed before it gained.
        finished: whether the search had stopped gaining.
        gradients: what it cost, in minibatch gradients.
    """

    gains: torch.Tensor
    finished: bool
    gradients: float


def respond(context: AuditContext, player: str, gradients: float) -> BestDeviation:
    """Search for a deviation of this player, the others frozen, as `nash` does, and score it."""
    tolerance = context.tolerance(player=player).value
    outcome = search_deviation(context, player, gradients, tolerance, no_tick)
    before = context.losses(player, context.players, context.constants, "score")
    if outcome.best.best is not None:  # of a descent that failed later, too
        gains = gain(context, player, outcome.best.best, "score")
    elif all(d.failed for d in outcome.descents):
        gains = torch.full_like(before, torch.nan)
    else:
        gains = 0 * before
    return BestDeviation(gains, outcome.finished, outcome.spent)


def _certificate(
    context: AuditContext, player: str, outcome: SearchOutcome, tolerance: Tolerance
) -> Certificate:
    best = outcome.best
    before = context.losses(player, context.players, context.constants, "score")
    measured, after = Interval(0.0, 0.0, 0.0), float(before.mean())
    if best.best is not None:
        differences = gain(context, player, best.best, "score")
        measured = context.interval(differences)
        after = float((before - differences).mean())
    failed = [d for d in outcome.descents if d.failed]
    decision = decide(measured, tolerance.value, finished=outcome.finished)
    if not tree.all_finite(before) or (
        len(failed) == len(outcome.descents) and decision.verdict is not Verdict.REFUTED
    ):
        decision = Decision(Verdict.UNASSESSED, Reason.NOT_FINITE)
    evidence = _evidence(context, player, outcome) | {
        "loss_before": float(before.mean()),
        "loss_after": after,
        "gain": measured.mean,
        "interval": [measured.low, measured.high],
        "score_batches": len(before),
        "reason": decision.reason.name.lower(),
    }
    refuted = decision.verdict is Verdict.REFUTED
    return Certificate(
        f"nash/{player}",
        decision.verdict,
        _summary(
            context,
            player,
            outcome,
            tolerance,
            measured,
            decision,
            tree.all_finite(before),
        ),
        evidence,
        tolerance,
        context.scope() | {"player": player},
        _limits(context, outcome, len(before)),
        REFERENCES,
        player,
        {player: best.best or {}} if refuted else None,
    )


def _evidence(context: AuditContext, player: str, outcome: SearchOutcome) -> Json:
    settings = context.settings
    return {
        "confidence": settings.confidence,
        "budget": {
            "starts": len(outcome.descents),
            "steps": max((d.step for d in outcome.descents), default=0),
            "failed": sum(bool(d.failed) for d in outcome.descents),
            "gradients": round(outcome.spent),
            "batch": settings.batch,
            "optimizer": repr(outcome.best.rule),
        },
        "searched": {
            kind: {"directions": reach.directions, "radius": reach.radius}
            for kind, reach in outcome.reach.items()
        },
        "radius": radius(outcome),
        "finished": outcome.finished,
        "rise": outcome.rise,
        "curves": [
            {
                "start": n,
                "from": d.start,
                "perturbation": d.perturbation,
                "optimizer": repr(d.rule),
                "steps": d.steps,
                "gain": d.gains,
                "failed": d.failed or None,
            }
            for n, d in enumerate(outcome.descents)
        ],
        "chosen": {
            "start": outcome.descents.index(outcome.best),
            "step": outcome.best.best_step,
        },
    }


def radius(outcome: SearchOutcome) -> float:
    """The distance, relative to the norm of the player's parameters, to which every kind of direction was
    searched: the least over the kinds. 0 where no line search could be afforded."""
    lines = [reach.radius for kind, reach in outcome.reach.items() if kind != "descents"]
    return min(lines, default=0.0)


def _summary(
    context: AuditContext,
    player: str,
    outcome: SearchOutcome,
    tolerance: Tolerance,
    measured: Interval,
    decision: Decision,
    finite: bool,
) -> str:
    unit = context.unit
    others = [p for p in context.game.players if p != player]
    other = others[0] if len(others) == 1 else "others"
    span = f"{context.settings.confidence:.0%} interval {measured.low:.3g} to {measured.high:.3g}"
    gained = f"{measured.mean:.3g} {unit} ({span})"
    best = f"The {player}'s best deviation gains {gained}"
    match decision.reason:
        case Reason.NOT_FINITE:
            if not finite:
                return f"The {player}'s loss is not finite at the trained pair."
            why = next((d.failed for d in outcome.descents if d.failed), "the gain is not finite")
            return f"Every search for a better {player} failed: {why}."
        case Reason.NO_TOLERANCE:
            return f"{best}; not assessed: {tolerance.why}."
        case Reason.ABOVE:
            return f"With the {other} frozen, the {player} alone lowers its loss by {gained}."
        case Reason.NOISE:
            return (
                f"{best}: the noise is above the tolerance of {tolerance.value:.3g}, so more data are needed "
                "to tell."
            )
        case Reason.STRADDLES:
            return (
                f"{best}: the interval holds the tolerance of {tolerance.value:.3g}, so more data are needed "
                "to tell."
            )
        case Reason.UNFINISHED:
            return (
                f"{best}, and the search was still gaining when its budget of {outcome.spent:.0f} gradients "
                "ended: give it more steps."
            )
        case _:
            return (
                f"No {player} was found that gains more than {tolerance.value:.3g} {unit} against the frozen "
                f"{other}; the best gains {measured.mean:.3g}. {_reached(player, outcome)}"
            )


def _reached(player: str, outcome: SearchOutcome) -> str:
    """How far the search looked, in a sentence."""
    lines = [
        f"{KINDS[kind]}" + (f" ({reach.directions})" if kind == "random" else "")
        for kind, reach in outcome.reach.items()
        if kind in KINDS
    ]
    descents = outcome.reach["descents"]
    went = (
        f"{descents.directions} descents went as far as {descents.radius:.2g} times that norm"
        if descents.directions > 1
        else f"one descent went as far as {descents.radius:.2g} times that norm"
    )
    if not lines:
        return (
            f"Only descents were afforded: {went.replace('that norm', 'the norm of its weights')}."
        )
    return f"Searched up to {radius(outcome):.2g} times the norm of the {player}'s weights {', '.join(lines)}; {went}."


def _limits(context: AuditContext, outcome: SearchOutcome, score_batches: int) -> tuple[str, ...]:
    settings = context.settings
    limits = [
        "a gain is a lower bound: a longer or luckier search may find more",
        f"the interval holds batch-to-batch noise over {score_batches} batches of the score split",
    ]
    if not context.game.separable:
        limits.append(
            f"losses depend on whole batches ({context.game.why_not_separable}): batches of "
            f"{settings.batch} were resampled"
        )
    if context.resampling("score") > 1:
        limits.append(
            "the score split is too small for eight whole batches: they were drawn with "
            "replacement, and the interval widened for it"
        )
    if context.lag is not None:
        limits.append(
            f"training divided by running estimates of the singular values (effective norms up to {context.lag:g}); "
            "the audited critic has norms of exactly 1, as `export` writes it"
        )
    missing = [words for kind, words in KINDS.items() if kind not in outcome.reach]
    if missing:
        limits.append(f"the budget or the loss allowed no line searches {' nor '.join(missing)}")
    failed = [d.failed for d in outcome.descents if d.failed]
    if failed:
        limits.append(f"{len(failed)} of {len(outcome.descents)} descents failed: {failed[0]}")
    return tuple(limits)


def _sheets(outcome: SearchOutcome, before: torch.Tensor) -> dict[str, torch.Tensor]:
    """The generator's samples before, half-way and at its chosen deviation (or at the end of the
    descent that was kept, where none was better)."""
    chosen = outcome.best if outcome.best.best is not None else outcome.descents[0]
    if not chosen.samples:
        return {}
    last = (
        chosen.steps.index(chosen.best_step) if chosen.best is not None else len(chosen.steps) - 1
    )
    return {
        "before": before,
        "during": chosen.samples[(last + 1) // 2],
        "after": chosen.samples[last],
    }
