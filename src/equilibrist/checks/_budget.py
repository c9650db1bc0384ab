"""What an audit costs in minibatch gradients, and from a number of them to the settings that spend no more."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from equilibrist.checks import facts, selftests
from equilibrist.checks._first_order import planned, planned_value
from equilibrist.checks._minimax import KEPT
from equilibrist.checks._settings import Settings
from equilibrist.checks.certificate import Certificate, not_assessed
from equilibrist.checks.context import AuditContext
from equilibrist.checks.registry import REGISTRY, Check, named_checks
from equilibrist.core.field import VectorField
from equilibrist.core.game import Constants, Players
from equilibrist.data import Source
from equilibrist.errors import RecipeError
from equilibrist.games import SampledGame

Plan = Callable[[AuditContext], dict[str, float]]

FACTS = "facts"  # the entry of the facts in the record of what was spent
SHARED = {
    planned: ("stationary", "local", "proximal"),
    planned_value: ("local", "proximal"),
}
DEEP = 500  # gradients of a player's search from which the facts are taken in depth
SECOND_ORDER = ("stable", "local", "proximal")
PROXIMAL = (
    "profile",
    "lambda-search",
    "generator-vs-prox",
    "gaps",
)  # searches against answering critics
SEARCH = 12.0  # gradients that the search of one player needs at least
SEARCH_SHARE = 0.35  # of the budget, that the search should have
PROXIMAL_SHARE = (
    0.5  # of the budget, for searches against answering critics where other checks run too
)
SHRINK = 0.75
LEVELS = 20  # sizes of searches against answering critics, from the least to the defaults
SLACK = 0.1  # of the budget, that may be spent above it


def allotted(context: AuditContext, checks: Sequence[str], plan: Plan) -> Settings:
    """The settings of `context`, with what its budget allows where they leave it open.

    Second-order checks begin with a sixth of the budget each, and get less while the others leave the search too
    little; searches against answering critics get half of the budget, all of it where nothing else is asked for; what
    is left goes to the search.

    Args:
        context: the pair; `context.settings.gradients` is the budget, `context.settings.fixed` names what was given.
        checks: what will be run.
        plan: the planned minibatch gradients of every check of a context, by name.

    Raises:
        RecipeError: a budget that the cheapest form of these checks exceeds; it names the least.
    """
    settings = context.settings
    n = settings.gradients
    if not n:
        return settings
    searched = "nash" in checks

    def others(chosen: Settings) -> float:
        """What everything but the searches of "nash" costs, less what is kept back for answers."""
        kept = KEPT * chosen.gradients if "local" in checks and context.sampled else 0.0
        return (
            sum(plan(context.with_settings(chosen)).values()) - _searches(chosen, searched) - kept
        )

    def cheapest(gradients: int) -> Settings:
        return _searching(_cheapest(replace(settings, gradients=gradients)), 2 * SEARCH)

    def least(gradients: int) -> float:
        chosen = cheapest(gradients)
        return others(chosen) + _searches(chosen, searched)

    needed = n
    while (cost := least(needed)) > needed:
        needed = math.ceil(cost)
    if needed > n:
        raise RecipeError(
            f"a budget of {n} gradients is too small for these checks: give at least {needed}, or fewer checks"
        )
    fits = [cheapest(n), *_sizes(context, checks, others, searched)]
    chosen = fits[-1]
    if not searched:
        return chosen
    # Larger searches may be worth facts in depth, which cost more.
    for _ in range(2):
        rest = n - others(chosen)
        chosen = _searching(chosen, max(rest, 2 * SEARCH))
    return chosen


def _sizes(
    context: AuditContext,
    checks: Sequence[str],
    others: Callable[[Settings], float],
    searched: bool,
) -> list[Settings]:
    """Settings within the budget, the best last; none where only the cheapest are."""
    settings = context.settings
    n = settings.gradients
    least = 2 * SEARCH if searched else 0.0
    base = _first(settings)
    proximal = [name for name in PROXIMAL if name in checks]
    if proximal:
        base = _proximal_sizes(context, checks, base, others)
    share, found = n / 6, []
    second = any(name in SECOND_ORDER for name in checks)
    while True:
        chosen = _open(base, _second(share)) if second else base
        rest = n - others(_searching(chosen, 2 * SEARCH))
        if rest >= least:
            found = [_searching(chosen, 2 * SEARCH)]
        if (rest >= least and rest >= SEARCH_SHARE * n * searched) or share < 10:
            return found
        share *= SHRINK


def _proximal_sizes(
    context: AuditContext,
    checks: Sequence[str],
    base: Settings,
    others: Callable[[Settings], float],
) -> Settings:
    """The largest searches against answering critics that their part of the budget affords, or the least."""
    n = context.settings.gradients
    plain = [name for name in checks if name not in (*PROXIMAL, "self-tests")]
    least = _open(base, _second(0.0))
    share = n if not plain else PROXIMAL_SHARE * n
    rest = n - (2 * SEARCH if "nash" in checks else 0.0)

    def cost(level: int) -> float:
        return others(_searching(_open(least, _against(level / LEVELS)), 2 * SEARCH))

    floor = cost(0) if plain else 0.0
    low, high = 0, LEVELS
    while low < high:
        level = (low + high + 1) // 2
        taken = cost(level)
        fits = taken <= rest and taken - floor <= share
        low, high = (level, high) if fits else (low, level - 1)
    return _open(base, _against(low / LEVELS))


def _first(settings: Settings) -> Settings:
    """The settings of first-order checks, and the banks of samples."""
    n = settings.gradients
    groups = 10 if n >= 1200 else 5
    wanted = {
        "groups": groups,
        "group_batches": max(1, min(8, n // (25 * groups))),
        "batches": 64 if n >= 6000 else 32 if n >= 1500 else 16 if n >= 300 else 8,
        "look_batches": 16 if n >= 1500 else 8 if n >= 300 else 4,
        "looks": 20 if n >= 1500 else 8,
    }
    return _open(settings, wanted)


def _second(share: float) -> dict[str, int]:
    """With about `share` gradients for each second-order check."""
    return {
        # A product costs about two and a half gradients on each of its minibatches, a Krylov step about six.
        "spectrum_batches": 1 if share < 1200 else 2,
        "spectrum_dense": int(share / 3.5),
        "spectrum_products": max(10, min(60, int(share / 8))),
        "local_draws": 1 if share < 150 else 2,
        "local_batches": max(2, min(8, int(share / 30))),
        "local_products": max(8, min(160, int(share / 5))),
    }


def _against(level: float) -> dict[str, object]:
    """Of searches against answering critics: the least at 0, the defaults at 1."""
    defaults = Settings()

    def between(low: int, high: int) -> int:
        return round(float(low * (high / low) ** level))

    grid = defaults.prox_lambdas
    return {
        "prox_lambdas": grid if level > 0.6 else grid[::3] if level <= 0.3 else grid[::2],
        "prox_starts": 1 if level <= 0.4 else defaults.prox_starts,
        "prox_steps": between(4, defaults.prox_steps),
        "inner_steps": between(8, defaults.inner_steps),
        "prox_trials": between(2, defaults.prox_trials),
        "experiment_steps": between(10, defaults.experiment_steps),
        # Held-out losses in float64 cost much more than steps of so few.
        "batches": between(8, 32),
        "look_batches": between(4, defaults.look_batches),
    }


def _cheapest(settings: Settings) -> Settings:
    """The cheapest form of every check; no field but the budget depends on it."""
    small = {"groups": 5, "group_batches": 1, "looks": 4}
    return _open(settings, small | _second(0.0) | _against(0.0))


def _searches(settings: Settings, searched: bool) -> float:
    return 2.0 * settings.starts * settings.steps if searched else 0.0


def _searching(settings: Settings, gradients: float) -> Settings:
    """The settings with these gradients for the searches of both players."""
    starts = settings.starts if "starts" in settings.fixed else 3
    steps = max(1, int(gradients / (2 * starts)))
    return _open(settings, {"starts": starts, "steps": steps})


def _open(settings: Settings, wanted: Mapping[str, Any]) -> Settings:
    return replace(settings, **{k: v for k, v in wanted.items() if k not in settings.fixed})


# -- where more is spent than was planned ----------------------------------------------------------------


def limit_of(settings: Settings, costs: Mapping[str, float], later: Iterable[str]) -> float:
    """What an audit may have spent at most when a check ends: the later ones have what they were planned to."""
    n = settings.gradients
    if not n:
        return math.inf
    # A step is counted once it is taken.
    step = 25.0 if any(name in PROXIMAL for name in costs) else min(2.5 + 0.005 * n, 0.02 * n)
    margin = max(0.01 * n, step)
    return (1 + SLACK) * n - margin - sum(costs[name] for name in later)


def unfinished(context: AuditContext, check: Check) -> list[Certificate]:
    """The certificates of a check that would have spent more than the budget."""
    why = (
        f"it took more than its part of the budget of {context.settings.gradients} gradients: give more, or fewer "
        "checks"
    )
    claims = check.claims or (check.name,)
    return [not_assessed(claim, why, scope=context.scope()) for claim in claims]


# -- what is planned -------------------------------------------------------------------------------------


def deep(settings: Settings) -> bool:
    """Whether the budget allows the facts in depth."""
    small = 0 < settings.gradients < 3 * DEEP
    return settings.starts * settings.steps >= DEEP and not small


def require_budget(
    game: SampledGame,
    players: Players,
    constants: Constants,
    data: Source,
    settings: Settings,
    checks: Sequence[str],
) -> None:
    """RecipeError where the budget of `settings` is too small for these checks: asked before a long training."""
    chosen = tuple(dict.fromkeys((selftests.CLAIM, *named_checks(checks))))
    allotted(AuditContext(game, players, constants, data, settings, 0), chosen, planner(chosen))


def planner(checks: tuple[str, ...]) -> Plan:
    """The planned minibatch gradients of each of these checks and of the facts, on a context."""

    def plan(context: AuditContext) -> dict[str, float]:
        costs = {name: REGISTRY[name].work(context) for name in checks}
        # What a context computes once is spent by the first check that asks for it.
        for part, those in SHARED.items() if context.sampled else ():
            for name in [name for name in checks if name in those][1:]:
                costs[name] -= part(context)
        return costs | {FACTS: facts.planned_gradients(context, deep(context.settings))}

    return plan


def announce(context: AuditContext, planned: dict[str, float]) -> None:
    """Announce the cost of the checks that no audit runs by default, before they run."""
    costly = [name for name in planned if name in REGISTRY and not REGISTRY[name].default]
    if not costly:
        return
    field, draw = VectorField(context.game), context.minibatch(0)
    field(context.players, context.constants, draw)
    started = time.perf_counter()
    field(context.players, context.constants, draw)
    one = time.perf_counter() - started
    for name in costly:
        seconds = planned[name] * one
        spent = f"{seconds / 60:.0f} minutes" if seconds > 90 else f"{seconds:.0f} s"
        print(
            f"{name}: up to about {planned[name]:,.0f} minibatch gradients, {spent} on this machine",
            file=sys.stderr,
            flush=True,
        )
