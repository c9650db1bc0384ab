"""What searches against answering critics cost, in minibatch gradients: planned, or at most."""

from __future__ import annotations

from equilibrist import tree
from equilibrist.checks.context import AuditContext
from equilibrist.checks.proximal.trial import most_reevaluations

POOL = 64  # minibatches of the optimise part, drawn once: their anchors' slopes are computed once and kept
# In minibatch gradients of both players, measured on small DCGANs: a critic step with the semi-norm and without,
# a generator step, a held-out batch in float64.
PENALISED, PLAIN, LEAD, MEASURED = 1.1, 0.6, 0.8, 2.5
SMALL = 2**14  # parameters of players whose answers are found on all fixed samples at once


def is_small(context: AuditContext) -> bool:
    """Whether answers are found on all fixed samples at once, unless these are large."""
    return bool(context.game.separable) and tree.count(context.players) <= SMALL


def trial_work(context: AuditContext, extra: int = 1) -> float:
    """Planned minibatch gradients of one trial on samples."""
    s = context.settings
    searches = s.prox_starts + min(extra, 1)
    # Of large players: half by their rules' steps, half on the fixed samples. Small ones need less.
    if s.gradients:
        return _most(context, searches, extra)
    answer, look = 2 * s.inner_steps * PENALISED, s.look_batches * MEASURED
    track = 2 * searches * s.prox_steps * (s.prox_track * PENALISED + LEAD) + searches * answer
    looks = 2 * (3 * searches + extra) * (answer + look)
    return track + looks + 5 * (5 * answer + 3 * look) + 4 * s.batches * MEASURED


def answer_work(context: AuditContext) -> float:
    """What one answer of the critic takes within a budget, at most."""
    steps = context.settings.inner_steps
    return (steps if is_small(context) else 2 * max(steps, 24)) * PENALISED


def well_work(context: AuditContext) -> float:
    """What `solve_well` takes within a budget, at most."""
    return 9 * answer_work(context) + 4 * context.settings.look_batches * MEASURED


def _most(context: AuditContext, searches: int, extra: int) -> float:
    """What a trial takes within a budget: what none of its parts exceeds, as long as no step is made shorter."""
    s, small = context.settings, is_small(context)
    answer, well, look = answer_work(context), well_work(context), s.look_batches * MEASURED
    step = answer + LEAD if small else 2 * (s.prox_track * PENALISED + LEAD)
    sides = 2 * (searches * (1 if small else 3) + extra)
    descents = searches * (answer + s.prox_steps * step)
    again = 2 * most_reevaluations(context) * (well + look)
    return well + look + descents + sides * (answer + look) + again + 4 * s.batches * MEASURED
