"""The checks of a solver on a game. Everything is computed in float64."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TypeGuard

import numpy as np
import torch
from torch import Tensor

from equilibrist import tree
from equilibrist.compiled import CompiledStep
from equilibrist.contract._arena import Arena, arena
from equilibrist.contract._outcomes import CheckOutcome, NotApplicable, ensure, outcome_of
from equilibrist.contract._ranks import Joined, on_two_ranks
from equilibrist.contract._solver_run import SolverRun
from equilibrist.core.draws import StackedDraws, normal
from equilibrist.core.field import Reduce, VectorField
from equilibrist.core.game import Game, Players
from equilibrist.errors import CompilationError, GameError
from equilibrist.games.truth import Known, Point, sizes_of
from equilibrist.solvers import Solver
from equilibrist.solvers.base import DrawSource, Linear

NEARBY = 1e-13  # relative: starts that rounding hardly tells apart
EXACT = 1e-12  # for one step, relative to the largest number in play
FACTOR = 1e-6  # for contraction factors, relative
STILL = 1e-7  # for staying at a point over a few steps, relative to 1 + its size
MEMBERS, STEPS, PATIENCE = 2, 2, 40


def check_solver(
    solver: Solver,
    where: Game | Arena,
    *,
    only: Iterable[str] | None = None,
    excluded: Mapping[str, str] | None = None,
) -> tuple[CheckOutcome, ...]:
    """Every check of `CHECKS` on one solver and one game.

    Args:
        solver: hyperparameters as for training; step sizes that suit the game.
        where: a game that carries its truth, or an `Arena`.
        only: names of the checks to run; all of `CHECKS` if None. "traced", the step as the graph that is compiled
            (`equilibrist.CompiledStep`), costs a second and runs only if it is named.
        excluded: checks (or "*", all) that do not apply, by name, each with its reason.

    What does not apply (no `linear_map`, nothing drawn, no known points) is excluded with the reason.

    Returns:
        What each check saw, in order; what does not apply is among them.

    Examples:
        >>> from equilibrist import SGD, Simultaneous, contract
        >>> from equilibrist.games import bilinear
        >>> found = contract.check_solver(Simultaneous(SGD(0.1)), bilinear(), only=["linear map"])
        >>> [(o.check, o.status) for o in found]
        [('linear map', 'passed')]
    """
    place = where if isinstance(where, Arena) else arena(where)
    left = excluded or {}
    wanted = set(CHECKS) if only is None else set(only)
    return tuple(
        outcome_of(name, partial(check, solver, place), left.get(name, left.get("*")))
        for name, check in {**CHECKS, **COSTLY}.items()
        if name in wanted
    )


def _frozen(solver: Solver, where: Arena) -> str:
    """Hyperparameters: a frozen dataclass that equals its copy."""
    ensure(dataclasses.is_dataclass(solver), "the solver is no dataclass")
    ensure(
        type(solver).__dataclass_params__.frozen,  # type: ignore[attr-defined]
        "the dataclass is not frozen",
    )
    ensure(copy.deepcopy(solver) == solver, "a copy does not equal the solver")
    return f"{len(dataclasses.fields(solver))} fields"  # type: ignore[arg-type]


def _values(solver: Solver, where: Arena) -> str:
    """State and results: trees of tensors without a graph; shapes that stay; info of every player."""
    run = SolverRun(solver, where)
    before = [(path, x.shape, x.dtype) for path, x in tree.items(run.everything)]
    run.go(2)
    after = [(path, x.shape, x.dtype) for path, x in tree.items(run.everything)]
    ensure(before == after, "players, constants or state change their names, shapes or types")
    leaves = [*tree.leaves(run.everything), *tree.leaves(run.info)]
    ensure(all(isinstance(x, Tensor) for x in leaves), "the state holds what is no tensor")
    ensure(not any(x.requires_grad for x in leaves), "a result still hangs on its graph")
    for kind in ("loss", "grad_norm"):
        held = set(run.info.get(kind, {}))
        ensure(held == set(where.game.players), f"info[{kind!r}] is of {sorted(held)}")
    return f"{len(after)} tensors"


def _replay(solver: Solver, where: Arena) -> str:
    """A run goes on from cloned values with the same bits: nothing else is remembered."""
    live = SolverRun(solver, where).go(2)
    other = live.copy()
    for _ in range(STEPS):
        live.go()
        other = other.copy().go()
        for (path, a), b in zip(
            tree.items(live.everything), tree.leaves(other.everything), strict=True
        ):
            ensure(torch.equal(a, b), f"{'/'.join(path)} differs after resuming from copies")
    return f"{STEPS} steps, the same bits"


def _linear_map(solver: Solver, where: Arena) -> str:
    """One step is `linear_map` on games with a linear field: differences of two runs."""
    matrix = _matrix(solver, where)
    runs = [SolverRun(solver, where, seed).go(2) for seed in (0, 1)]
    before = [run.z for run in runs]
    after = [run.go().z for run in runs]
    size = len(before[0])
    ensure(
        matrix.shape == (size, size), f"linear_map is {list(matrix.shape)}, the state has {size}"
    )
    error = float((matrix @ (before[0] - before[1]) - (after[0] - after[1])).abs().max())
    error /= max(1.0, *(float(z.abs().max()) for z in (*before, *after)))
    ensure(error < EXACT, f"the step differs from linear_map by {error:.1e}")
    return f"{error:.1e}"


def _factor(solver: Solver, where: Arena) -> str:
    """The observed factor of many steps is the spectral radius of `linear_map`."""
    radius = float(torch.linalg.eigvals(_matrix(solver, where)).abs().max())
    origin = SolverRun(solver, where, at=stated_points(where)[0].players).go(2).z
    run = SolverRun(solver, where).go(2)
    for _ in range(2):  # far below rounding, or beyond range, nothing could be seen
        away = run.z - origin
        if not bool(away.any()):
            break
        run.put(origin + away / away.norm())
        run.go(12)
    window = [run.z - origin] + [run.go().z - origin for _ in range(2 * len(origin) + 1)]
    seen = _growth(torch.stack(window, 1))
    error = abs(seen - radius) / max(radius, 1e-12)
    ensure(error < FACTOR, f"the factor is {seen:.9f}, the spectral radius {radius:.9f}")
    return f"{seen:.9f}"


def _growth(window: Tensor) -> float:
    """The dominating modulus of the linear map that takes each column to the next: dynamic mode
    decomposition (Schmid 2010) of what has not died out."""
    past, now = window[:, :-1], window[:, 1:]
    left, sigma, right = torch.linalg.svd(past, full_matrices=False)
    alive = sigma > 1e-9 * sigma[0]
    if not bool(sigma[0] > 0):
        return 0.0
    small = left[:, alive].mT @ now @ right[alive].mT / sigma[alive]
    return float(torch.linalg.eigvals(small).abs().max())


def _still(solver: Solver, where: Arena) -> str:
    """Known points, one of each kind, stay where they are."""
    worst = 0.0
    for point in _one_of_each(where):
        run = SolverRun(solver, where, at=point.players).go(3)
        here = tree.flatten(point.players)
        moved = float((tree.flatten(run.players) - here).abs().max())
        worst = max(worst, moved / (1 + float(here.abs().max())))
        ensure(worst < STILL, f"a {point.kind} is left by {moved:.1e} in 3 steps")
    return f"{worst:.1e}"


def _attraction(solver: Solver, where: Arena) -> str:
    """Runs beside a point come nearer or go away as `linear_map` at the point's J predicts."""
    game = where.game
    if gives(game, "linear"):
        raise NotApplicable("where the field is linear the factor tells it")
    reported = []
    for point in _one_of_each(where):
        if point.held:
            continue
        assert gives(game, "jacobian")
        matrix = _map(solver, game.jacobian(point.players), sizes_of(point.players))
        radius = float(torch.linalg.eigvals(matrix).abs().max())
        start = tree.flatten(point.players)
        shift = 1e-6 * torch.linspace(0.6, -1.0, len(start), dtype=start.dtype)
        z = torch.cat([shift, shift.new_zeros(len(matrix) - len(shift))])
        predicted, steps = 1.0, 0
        while 0.2 < predicted < 5 and steps < PATIENCE:
            z, steps = matrix @ z, steps + 1
            predicted = float(z[: len(shift)].norm() / shift.norm())
        reached = radius < 1
        if (predicted < 0.5) != reached or (predicted > 2) == reached:
            reported.append(f"{point.kind}: radius {radius:.4f}, too slow to tell in {steps} steps")
            continue
        run = SolverRun(solver, where, at=tree.unflatten(start + shift, point.players)).go(steps)
        ratio = float((tree.flatten(run.players) - start).norm() / shift.norm())
        ensure(
            0.5 < ratio / predicted < 2,
            f"{point.kind}: after {steps} steps the distance has changed {ratio:.2g}-fold where "
            f"linear_map predicts {predicted:.2g}",
        )
        reported.append(f"{point.kind}: {'reached' if reached else 'left'}")
    if not any("reached" in t or "left" in t for t in reported):
        raise NotApplicable("; ".join(reported) or "the feasible set holds every known point")
    return "; ".join(reported)


def _stacked(solver: Solver, where: Arena) -> str:
    """Steps of stacked members are the steps of each, as far as rounding allows: an ill-conditioned step makes more
    of a difference in the last digit, by as much as it makes of one at the start."""
    alone = [SolverRun(solver, where, seed) for seed in range(MEMBERS)]
    together = tree.stack([run.players for run in alone])
    constants = tree.stack([run.constants for run in alone])
    field, state = VectorField(where.game, stacked=MEMBERS), solver.init(together)
    for step in range(STEPS):
        draws = StackedDraws([where.draws(seed, step) for seed in range(MEMBERS)])
        together, constants, state, info = solver.step(field, together, constants, state, draws)
    whole = {"players": together, "constants": constants, "state": state}
    worst = 0.0
    for index, run in enumerate(alone):
        nearby = run.copy()
        rng = np.random.default_rng(index)
        moved = normal(rng, nearby.z.shape, torch.float64, "cpu")
        nearby.put(nearby.z * (1 + NEARBY * moved))
        run.go(STEPS)
        nearby.go(STEPS)
        allowed = EXACT * max(1.0, _apart(nearby, run) / NEARBY)
        for (path, a), b in zip(
            tree.items({**whole, "info": info}),
            tree.leaves({**run.everything, "info": run.info}),
            strict=True,
        ):
            mine = a[index] if a.ndim > b.ndim else a
            error = float((mine.double() - b.double()).abs().max() / (1 + b.double().abs().max()))
            worst = max(worst, error)
            ensure(error < allowed, f"member {index}: {'/'.join(path)} differs by {error:.1e}")
    return f"{MEMBERS} members, {worst:.1e}"


def _apart(one: SolverRun, other: SolverRun) -> float:
    """The largest difference between two runs, each tensor's relative to 1 and to its largest number."""
    pairs = zip(
        tree.leaves({**one.everything, "info": one.info}),
        tree.leaves({**other.everything, "info": other.info}),
        strict=True,
    )
    return max(
        float((a.double() - b.double()).abs().max() / (1 + b.double().abs().max()))
        for a, b in pairs
    )


def _two_ranks(solver: Solver, where: Arena) -> str:
    """Two machines with half of each batch do what one does with the whole."""
    if not where.drawn:
        raise NotApplicable("nothing is drawn: both machines would compute the same")
    try:
        own = SolverRun(solver, where)
        own.field = VectorField(where.game, reduce=lambda tensors: tensors)
        own.go()
    except GameError as refused:
        raise NotApplicable(f"refused: {refused}") from None

    # A game may write to modules of its own while it computes: each thread needs its own.
    games = [copy.deepcopy(where.game) for _ in range(3)]

    def play(game: Game, reduce: Reduce | None, draws: Callable[[int], DrawSource]) -> Players:
        run = runs.pop()
        field = VectorField(game, reduce=reduce)
        players, constants, state = run.players, run.constants, run.state
        for step in range(STEPS):
            players, constants, state, _ = solver.step(
                field, players, constants, state, draws(step)
            )
        return players

    runs = [SolverRun(solver, where) for _ in games]
    found = on_two_ranks(
        lambda rank, reduce: play(games[rank], reduce, lambda k: where.draws(0, k, rank))
    )
    whole = play(games[2], None, lambda k: Joined(where.draws(0, k, 0), where.draws(0, k, 1)))
    worst = 0.0
    for rank, players in enumerate(found):
        a, b = tree.flatten(players), tree.flatten(whole)
        error = float((a - b).abs().max() / (1 + b.abs().max()))
        worst = max(worst, error)
        ensure(error < 10 * EXACT, f"rank {rank} differs from one machine by {error:.1e}")
    return f"{worst:.1e}"


def _traced(solver: Solver, where: Arena) -> str:
    """The step as one graph of operations, which is what is compiled, is the eager step."""
    eager, run = SolverRun(solver, where), SolverRun(solver, where)
    step = CompiledStep(solver, run.field, compiler=lambda graph, examples: graph)
    worst = 0.0
    for k in range(STEPS):
        eager.go()
        try:
            taken = step(run.players, run.constants, run.state, where.draws(0, k))
        except CompilationError as refused:
            raise NotApplicable(f"refused: {refused}") from None
        run.players, run.constants, run.state, run.info = taken
        worst = max(worst, _apart(run, eager))
        ensure(worst < EXACT, f"step {k} differs by {worst:.1e}")
    return f"{step.operations} operations, {worst:.1e}"


CHECKS: dict[str, Callable[[Solver, Arena], str]] = {
    "frozen": _frozen,
    "values": _values,
    "replay": _replay,
    "linear map": _linear_map,
    "factor": _factor,
    "still": _still,
    "attraction": _attraction,
    "stacked": _stacked,
    "two ranks": _two_ranks,
}
# Checks that cost a second a cell: they run where `only` names them.
COSTLY: dict[str, Callable[[Solver, Arena], str]] = {"traced": _traced}


def gives(game: Game, attribute: str) -> TypeGuard[Known]:
    """Whether the game gives this part of its truth: "points", "jacobian" or "linear"."""
    return bool(getattr(game, attribute, False))


def stated_points(where: Arena) -> tuple[Point, ...]:
    """The game's stationary points.

    Raises:
        NotApplicable: it states none.
    """
    game = where.game
    if not gives(game, "points"):
        raise NotApplicable(f"{type(game).__name__} does not give its stationary points")
    found = game.points()
    if not found:
        raise NotApplicable(f"there is no stationary point: {game.why_none}")
    return found


def _one_of_each(where: Arena) -> list[Point]:
    kinds = {(point.kind, point.attracts): point for point in reversed(stated_points(where))}
    return list(kinds.values())[::-1]


def _matrix(solver: Solver, where: Arena) -> Tensor:
    game = where.game
    if not gives(game, "linear"):
        raise NotApplicable("the field is not linear")
    players, _ = where.start(0)
    return _map(solver, game.jacobian(players), sizes_of(players))


def _map(solver: Solver, jacobian: Tensor, sizes: Mapping[str, int]) -> Tensor:
    if not _has_map(solver):
        raise NotApplicable(f"{type(solver).__name__} gives no linear_map")
    try:
        return solver.linear_map(jacobian, sizes)
    except ValueError as why:
        raise NotApplicable(str(why)) from None


def _has_map(solver: Solver) -> TypeGuard[Linear]:
    return hasattr(solver, "linear_map")
