"""The changes that can be made of a recipe without asking its author: one thing each."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

from equilibrist.errors import EquilibristError
from equilibrist.run import Recipe
from equilibrist.solvers import Alternating, Averaged
from equilibrist.solvers.named import solver_from_text

Change = Callable[[Recipe], Recipe]
FACTOR = 4.0  # by which rates and batches are changed; penalties by its square, near enough: 10


def changes_of(recipe: Recipe) -> dict[str, Change]:
    """Changes of this recipe by name: rates of either player and both, critic steps, penalty weights, the solver,
    averages, the batch. Those that the recipe does not allow are left out.

    Returns:
        {name: change}, each from a recipe to another.
    """
    found: dict[str, Change] = {}
    for player, text in (("generator", "generator"), ("critic", "critic"), ("", "both")):
        for factor in (1 / FACTOR, FACTOR):
            if player or factor < 1:  # both faster at once is seldom what a pair lacks
                words = f"{'a quarter' if factor < 1 else 'four times'} of"
                name = f"{words} the {text}'s rate" if player else f"{words} both rates"
                found[name] = _rates(player, factor)
    inner = recipe.solver
    while isinstance(inner, Averaged):
        inner = inner.solver
    if isinstance(inner, Alternating):
        steps = {1: (3, 5)}.get(inner.critic_steps, (1, 2 * inner.critic_steps))
        for k in steps:
            plural = "step" if k == 1 else "steps"
            found[f"{k} critic {plural}"] = _solver(f"alternating:critic_steps={k}")
    for factor, words in ((0.1, "a tenth"), (10.0, "ten times")):
        if any(hasattr(p, "weight") for p in recipe.game.penalties):
            found[f"{words} of the penalty"] = _penalty(factor)
    for name, text in (("consensus", "consensus:gamma=1"), ("extragradient", "extragradient")):
        if type(inner).__name__.lower() != name:
            found[name] = _solver(text)
    if inner is recipe.solver:
        found["an average of the generator"] = _solver(
            "recipe:average=exponential,average.decay=0.99"
        )
    found["four times the batch"] = _batch
    return {name: change for name, change in found.items() if _allowed(change, recipe)}


def _allowed(change: Change, recipe: Recipe) -> bool:
    try:
        change(recipe)
    except (EquilibristError, ValueError):
        return False
    return True


def _solver(text: str) -> Change:
    return lambda recipe: dataclasses.replace(recipe, solver=solver_from_text(text, recipe.solver))


def _rates(player: str, factor: float) -> Change:
    """The step sizes of one player ("": of all) times a factor."""

    def change(recipe: Recipe) -> Recipe:
        inner: Any = recipe.solver
        while not hasattr(inner, "rule") and hasattr(inner, "solver"):
            inner = inner.solver
        solver = recipe.solver
        for who in (player,) if player else recipe.game.players:
            rule = inner.rule(who)
            while not hasattr(rule, "lr") and hasattr(rule, "rule"):
                rule = rule.rule
            if not hasattr(rule, "lr"):
                raise ValueError(f"{rule} has no step size")
            solver = solver_from_text(f"recipe:lr.{who}={rule.lr * factor!r}", solver)
        return dataclasses.replace(recipe, solver=solver)

    return change


def _penalty(factor: float) -> Change:
    def change(recipe: Recipe) -> Recipe:
        own: tuple[Any, ...] = tuple(recipe.game.penalties)
        game: Any = copy.copy(recipe.game)
        game.penalties = tuple(
            dataclasses.replace(p, weight=p.weight * factor) if hasattr(p, "weight") else p
            for p in own
        )
        return dataclasses.replace(recipe, game=game)

    return change


def _batch(recipe: Recipe) -> Recipe:
    return dataclasses.replace(recipe, batch=int(FACTOR) * recipe.batch)
