"""From a number of minibatch gradients to the settings of an audit that spends no more."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from equilibrist._errors import RecipeError
from equilibrist.checks._bench import Bench
from equilibrist.checks._settings import Settings

Plan = Callable[[Bench], dict[str, float]]

SECOND_ORDER = ("stable", "local", "proximal")
SEARCH = 12.0  # gradients that the search of one player needs at least
SEARCH_SHARE = 0.35  # of the budget, that the search should have
SHRINK = 0.75


def allotted(bench: Bench, checks: Sequence[str], plan: Plan) -> Settings:
    """The settings of `bench`, with what its budget allows where they leave it open.

    Second-order checks begin with a sixth of the budget each, and get less while the others leave the search too
    little; what is left goes to the search.

    Args:
        bench: the pair; `bench.settings.gradients` is the budget, `bench.settings.fixed` names what was given.
        checks: what will be run.
        plan: the planned minibatch gradients of every check of a bench, by name.

    Raises:
        RecipeError: a budget that the cheapest form of these checks exceeds; it names the least.
    """
    settings = bench.settings
    n = settings.gradients
    if not n:
        return settings
    second = [name for name in SECOND_ORDER if name in checks]
    searched = "nash" in checks
    share = n / 6
    while True:
        chosen = _chosen(settings, share, bool(second))
        costs = plan(bench.with_settings(_searching(chosen, 2 * SEARCH)))
        rest = n - sum(cost for name, cost in costs.items() if name != "nash")
        least = 2 * SEARCH if searched else 0.0
        enough = max(least, SEARCH_SHARE * n) if searched else 0.0
        if rest >= enough or share < 10:
            break
        share *= SHRINK
    if rest < least:
        needed = math.ceil(n - rest + least)
        while (
            lacking := _lacking(bench, needed, plan, least)
        ) > 0:  # a larger budget plans larger checks
            needed += math.ceil(lacking)
        raise RecipeError(
            f"a budget of {n} gradients is too small for these checks: give at least {needed}, or fewer checks"
        )
    return _searching(chosen, rest) if searched else chosen


def _lacking(bench: Bench, gradients: int, plan: Plan, least: float) -> float:
    """How many gradients this budget lacks for the cheapest form of the checks."""
    settings = replace(bench.settings, gradients=gradients)
    chosen = _searching(_chosen(settings, 9.0, True), 2 * SEARCH)
    costs = plan(bench.with_settings(chosen))
    return sum(cost for name, cost in costs.items() if name != "nash") + least - gradients


def _chosen(settings: Settings, share: float, second: bool) -> Settings:
    """The settings of everything but the search, with about `share` gradients for each second-order check."""
    n = settings.gradients
    groups = 10 if n >= 1200 else 5
    wanted: dict[str, Any] = {
        "groups": groups,
        "group_batches": max(1, min(8, n // (25 * groups))),
        "batches": 64 if n >= 6000 else 32 if n >= 1500 else 16 if n >= 300 else 8,
        "look_batches": 16 if n >= 1500 else 8 if n >= 300 else 4,
        "looks": 20 if n >= 1500 else 8,
    }
    if second:
        wanted |= {
            # A product costs about two and a half gradients on each of its minibatches, a Krylov step about six.
            "spectrum_batches": 1 if share < 1200 else 2,
            "spectrum_dense": int(share / 3.5),
            "spectrum_products": max(10, min(60, int(share / 8))),
            "local_draws": 1 if share < 150 else 2,
            "local_batches": max(2, min(8, int(share / 30))),
            "local_products": max(8, min(160, int(share / 5))),
        }
    return _open(settings, wanted)


def _searching(settings: Settings, gradients: float) -> Settings:
    """The settings with these gradients for the searches of both players."""
    starts = settings.starts if "starts" in settings.fixed else 3
    steps = max(1, int(gradients / (2 * starts)))
    return _open(settings, {"starts": starts, "steps": steps})


def _open(settings: Settings, wanted: dict[str, Any]) -> Settings:
    return replace(settings, **{k: v for k, v in wanted.items() if k not in settings.fixed})
