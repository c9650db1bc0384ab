"""Nash by exact best responses, for games that have them in closed form."""

from __future__ import annotations

import math
from typing import Any

from equilibrist import tree
from equilibrist.checks._decide import Interval, decide
from equilibrist.checks.certificate import Certificate, Verdict, not_assessed, of_all_players
from equilibrist.checks.context import AuditContext, Tick
from equilibrist.checks.deviation import gains_of

REFERENCES = ("Nash equilibrium: Farnia and Ozdaglar 2020, inequalities (2)",)


def exact_nash(context: AuditContext, tick: Tick) -> list[Certificate]:
    """Certificates "nash/<player>" and "nash" from `game.best_response(player, players)`.

    A player's gain is its loss at the pair less its loss at its best response, over its feasible set: VERIFIED
    where no player gains more than the tolerance, REFUTED (with the response as the witness) where one does.
    UNASSESSED: a loss that is not finite, or a pair outside the feasible sets.
    """
    parts = [_one(context, player, tick) for player in context.game.players]
    return [*parts, of_all_players("nash", parts, gains_of(parts))]


def _one(context: AuditContext, player: str, tick: Tick) -> Certificate:
    players, constants = context.wide
    tolerance = context.tolerance()
    game: Any = context.game
    answer = game.best_response(player, players)
    if answer is None:
        why = f"the {player}'s best response has no closed form at this pair"
        scope, evidence = context.scope(), {"gain": 0.0}
        return not_assessed(
            f"nash/{player}", why, evidence=evidence, tolerance=tolerance, scope=scope
        )
    moved = {**players, player: answer.params}
    before, after = (
        float(context.losses(player, at, constants, "score").mean()) for at in (players, moved)
    )
    tick(2)
    gain = before - after
    feasible = game.project(players)
    outside = float(tree.norm(tree.axpy(-1.0, feasible[player], players[player])))
    measured = {
        "gain": gain,
        "interval": [gain, gain],
        "loss_before": before,
        "loss_after": after,
        "bounded": answer.best,
        "outside": outside,
    }
    if not math.isfinite(before):
        verdict, summary = Verdict.UNASSESSED, f"The {player}'s loss is not finite at this pair."
    elif outside > 1e-9 * (1 + float(tree.norm(players[player]))):
        verdict = Verdict.UNASSESSED
        summary = (
            f"The {player} stands {outside:.3g} outside its feasible set: project the pair first."
        )
    else:
        verdict, summary = _judged(context, player, gain, answer.best)
    return Certificate(
        f"nash/{player}",
        verdict,
        summary,
        measured,
        tolerance,
        context.scope() | {"player": player, "how": "exact best response"},
        ("within the player's feasible set",),
        REFERENCES,
        player,
        {player: answer.params} if verdict is Verdict.REFUTED else None,
    )


def _judged(context: AuditContext, player: str, gain: float, bounded: bool) -> tuple[Verdict, str]:
    """The verdict on "the player gains no more than the tolerance", and its sentence."""
    tolerance = context.tolerance()
    decision = decide(Interval.at(gain), tolerance.value, exhaustive=True)
    # From a finite loss to one that is not: that gain has no number, but it is one.
    if decision.verdict is not Verdict.REFUTED and math.isfinite(gain):
        return decision.verdict, (
            f"The {player}'s best response gains {max(gain, 0.0):.3g} {context.unit}: not above the tolerance "
            f"of {tolerance.value:.3g}."
        )
    if not bounded:
        return Verdict.REFUTED, f"The {player}'s loss falls without bound when it moves alone."
    return Verdict.REFUTED, (
        f"By its best response the {player} alone lowers its loss by {gain:.3g} {context.unit}."
    )
