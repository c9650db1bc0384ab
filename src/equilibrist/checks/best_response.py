"""Nash by exact best responses, for games that have them in closed form."""

from __future__ import annotations

import math
from typing import Any

from equilibrist import tree
from equilibrist.checks._spent import Tick
from equilibrist.checks.certificate import Certificate, Verdict, both
from equilibrist.checks.context import AuditContext

REFERENCES = ("Nash equilibrium: Farnia and Ozdaglar 2020, inequalities (2)",)


def exact_nash(context: AuditContext, tick: Tick) -> list[Certificate]:
    """Certificates "nash/<player>" and "nash" from `game.best_response(player, players)`.

    A player's gain is its loss at the pair less its loss at its best response, over its feasible set: VERIFIED
    where no player gains more than the tolerance, REFUTED (with the response as the witness) where one does.
    UNASSESSED: a loss that is not finite, or a pair outside the feasible sets.
    """
    parts = [_one(context, player, tick) for player in context.game.players]
    refuted = [c for c in parts if c.verdict is Verdict.REFUTED]
    if refuted:
        worst = max(refuted, key=lambda c: c.evidence["gain"])
        said = f"Not a Nash equilibrium. {worst.summary}"
    elif any(c.verdict is Verdict.UNASSESSED for c in parts):
        said = "Cannot tell whether this is a Nash equilibrium: " + next(
            c.summary for c in parts if c.verdict is Verdict.UNASSESSED
        )
    else:
        said = "A Nash equilibrium: no player's best response gains more than the tolerance."
    return [*parts, both("nash", parts, said)]


def _one(context: AuditContext, player: str, tick: Tick) -> Certificate:
    players, constants = context.wide
    tolerance = context.tolerance()
    game: Any = context.game
    answer = game.best_response(player, players)
    if answer is None:
        said = f"Not assessed: the {player}'s best response has no closed form at this pair."
        return Certificate(
            f"nash/{player}",
            Verdict.UNASSESSED,
            said,
            {"gain": 0.0},
            tolerance,
            context.scope(),
            player=player,
        )
    moved = {**players, player: answer.params}
    before, after = (
        float(context.losses(player, at, constants, "score").mean()) for at in (players, moved)
    )
    tick(2)
    gain = before - after
    feasible = game.project(players)
    outside = float(tree.norm(tree.axpy(-1.0, feasible[player], players[player])))
    size = float(tree.norm(players[player]))
    evidence = {
        "gain": gain,
        "interval": [gain, gain],
        "loss_before": before,
        "loss_after": after,
        "bounded": answer.best,
        "outside": outside,
    }
    witness = None
    if not math.isfinite(before):
        verdict, said = Verdict.UNASSESSED, f"The {player}'s loss is not finite at this pair."
    elif outside > 1e-9 * (1 + size):
        verdict = Verdict.UNASSESSED
        said = (
            f"The {player} stands {outside:.3g} outside its feasible set: project the pair first."
        )
    elif not answer.best and gain > tolerance.value:
        verdict, witness = Verdict.REFUTED, {player: answer.params}
        said = f"The {player}'s loss falls without bound when it moves alone."
    elif gain > tolerance.value or math.isnan(gain):
        verdict, witness = Verdict.REFUTED, {player: answer.params}
        said = (
            f"By its best response the {player} alone lowers its loss by {gain:.3g} {context.unit}."
        )
    else:
        verdict = Verdict.VERIFIED
        said = (
            f"The {player}'s best response gains {max(gain, 0.0):.3g} {context.unit}: not above the tolerance "
            f"of {tolerance.value:.3g}."
        )
    return Certificate(
        f"nash/{player}",
        verdict,
        said,
        evidence,
        tolerance,
        context.scope() | {"player": player, "how": "exact best response"},
        ("within the player's feasible set",),
        REFERENCES,
        player,
        witness,
    )
