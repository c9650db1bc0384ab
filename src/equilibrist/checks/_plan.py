"""What an audit is going to cost, in minibatch gradients: planned by check, held to a budget, announced."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence

from equilibrist.checks import facts, selftests
from equilibrist.checks._budget import allotted
from equilibrist.checks._first_order import planned, planned_value
from equilibrist.checks._settings import Settings
from equilibrist.checks.context import AuditContext
from equilibrist.checks.registry import REGISTRY, named_checks
from equilibrist.core.field import VectorField
from equilibrist.core.game import Constants, Players
from equilibrist.data import Source
from equilibrist.games import GAN

FACTS = "facts"  # beside the checks in the record of what was spent
SHARED = {
    planned: ("stationary", "local", "proximal"),
    planned_value: ("local", "proximal"),
}
DEEP = 500  # gradients of a player's search from which the facts are taken in depth


def deep(settings: Settings) -> bool:
    """Whether the budget allows the facts in depth."""
    small = 0 < settings.gradients < 3 * DEEP
    return settings.starts * settings.steps >= DEEP and not small


def require_budget(
    game: GAN,
    players: Players,
    constants: Constants,
    data: Source,
    settings: Settings,
    checks: Sequence[str],
) -> None:
    """RecipeError where the budget of `settings` is too small for these checks: asked before a long training."""
    chosen = tuple(dict.fromkeys((selftests.CLAIM, *named_checks(checks))))
    allotted(AuditContext(game, players, constants, data, settings, 0), chosen, planner(chosen))


def planner(checks: tuple[str, ...]) -> Callable[[AuditContext], dict[str, float]]:
    """The planned minibatch gradients of each of these checks and of the facts, on a context."""

    def plan(context: AuditContext) -> dict[str, float]:
        costs = {name: REGISTRY[name].work(context) for name in checks}
        # What a context computes once is spent by the first check that asks for it.
        for part, those in SHARED.items() if context.sampled else ():
            for name in [name for name in checks if name in those][1:]:
                costs[name] -= part(context)
        return costs | {FACTS: facts.work(context, deep(context.settings))}

    return plan


def announce(context: AuditContext, planned: dict[str, float]) -> None:
    """Say what the checks that no audit runs unasked are about to cost, before they cost it."""
    costly = [name for name in planned if name in REGISTRY and not REGISTRY[name].default]
    if not costly:
        return
    field, draw = VectorField(context.game), context.minibatch(0)
    field(context.players, context.constants, draw)
    begun = time.perf_counter()
    field(context.players, context.constants, draw)
    one = time.perf_counter() - begun
    for name in costly:
        seconds = planned[name] * one
        spent = f"{seconds / 60:.0f} minutes" if seconds > 90 else f"{seconds:.0f} s"
        print(
            f"{name}: up to about {planned[name]:,.0f} minibatch gradients, {spent} on this machine",
            file=sys.stderr,
            flush=True,
        )
