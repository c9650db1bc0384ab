"""Hsieh, Liu and Cevher 2019, the theory: mixed equilibria where there are no pure ones, and mirror descent."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from equilibrist.core.draws import Stream, generator
from equilibrist.mixed import (
    Box,
    Circle,
    Density,
    Domain,
    GridDescent,
    MatrixGame,
    MirrorDescent,
    MixedW2Gaussian,
    PayoffGame,
    circle_game,
    squared_distance_equilibrium,
    squared_distance_game,
    von_mises,
    von_mises_step,
)
from equilibrist.mixed.measures import Measure
from equilibrist.mixed.truths import circle_moment, von_mises_moment
from equilibrist.papers import hsieh_rates
from equilibrist.papers.hsieh_rates import recorded
from equilibrist.papers.model import (
    Claim,
    ClaimOutcome,
    Experiment,
    Measures,
    Records,
    Size,
    Unit,
    Workspace,
)
from equilibrist.papers.sources import HSIEH
from equilibrist.theory.w2gan import W2Gaussian

SAME = 1e-9  # differences below this are rounding
SEED = 2019

# -- pure and mixed equilibria --------------------------------------------------------------------------

GAUSSIANS = ((2, 2.0, 0.5, 1.0), (1, 1.5, 0.5, 0.5), (4, 3.0, 1.0, 2.0), (3, 1.2, 1.0, 2.0))
PAIRS = 2000  # random pure strategies a player that must not beat the closed forms


def _equilibria(place: Workspace) -> Measures:
    games = [_gaussian(*case) for case in GAUSSIANS]
    circle = circle_game()
    uniform = Density.uniform(Circle().grid(64))
    games.append(_on_a_grid("cos(x - y) on the circle", circle, Circle(), (uniform, uniform)))
    games.append(
        _on_a_grid(
            "(x - y)^2 on [0, 1]", squared_distance_game(), Box(), squared_distance_equilibrium()
        )
    )
    return {"games": games}


def _gaussian(d: int, s: float, eta: float, t: float) -> Measures:
    """The Gaussian W2GAN: closed forms, random pure strategies that try to beat them, and the mixture's gap."""
    pure, mixed = W2Gaussian(d, s, eta, t), MixedW2Gaussian(d, s, eta, t)
    rng = generator(SEED, Stream.STUDY, d)
    least, most = math.inf, -math.inf
    optimum = pure.optimum()
    for k in range(PAIRS):
        spread = 10.0 ** -(k % 5)  # from anywhere to close by
        W = optimum.W + spread * rng.standard_normal((d, d))
        left, sigma, right = np.linalg.svd(W)
        u = spread * rng.standard_normal(d)
        u *= min(1.0, t / float(np.linalg.norm(u)))
        least = min(least, pure.max_value((left * np.minimum(sigma, 1)) @ right, u))
        A = rng.standard_normal((d, d))
        values, vectors = np.linalg.eigh(pure.max_min_critic()[0] + spread * (A + A.T) / 2)
        A = (vectors * np.minimum(values, eta * (1 - 1e-6))) @ vectors.T
        most = max(most, pure.best_generator(A, spread * rng.standard_normal(d)).value)
    gap = mixed.gap(*mixed.equilibrium())
    return {
        "game": f"Gaussian W2GAN, d = {d}, s = {s:g}, eta = {eta:g}, t = {t:g}",
        "min_max": pure.optimal_value,
        "max_min": pure.max_min_value,
        "beaten": max(pure.optimal_value - least, most - pure.max_min_value, 0.0),
        "mixed_value": gap.value,
        "mixed_gap": gap.total,
    }


def _on_a_grid(
    name: str, game: PayoffGame, domain: Domain, equilibrium: tuple[Measure, Measure]
) -> Measures:
    """A game of one number a player: pure values on 360 evenly spaced strategies, which hold the optimal ones."""
    if isinstance(domain, Circle):
        points = torch.linspace(0, 2 * math.pi, 361, dtype=torch.float64)[:-1, None]
    else:
        points = torch.linspace(0, 1, 361, dtype=torch.float64)[:, None]
    payoffs = game.matrix(points, points)
    gap = game.gap(*equilibrium)
    return {
        "game": name,
        "min_max": float(payoffs.amax(1).amin()),
        "max_min": float(payoffs.amin(0).amax()),
        "beaten": 0.0,
        "mixed_value": gap.value,
        "mixed_gap": gap.total,
    }


def _judge_pure(records: Records) -> ClaimOutcome:
    games = recorded(records, "equilibria").get("games")
    if games is None:
        return ClaimOutcome("not tried", "no run yet")
    free = [one for one in games if one["min_max"] > one["max_min"] + SAME]
    beaten = max(one["beaten"] for one in games)
    why = (
        f"min max exceeds max min over pure strategies in {len(free)} of {len(games)} games, by "
        + ", ".join(f"{one['min_max'] - one['max_min']:.3g}" for one in games)
        + f"; {2 * PAIRS:,} random strategies a W2GAN beat the closed forms by {beaten:.1g} at most"
    )
    if beaten > SAME:
        return ClaimOutcome("undecided", why)
    return ClaimOutcome("holds" if free else "does not hold", why)


def _judge_mixed(records: Records) -> ClaimOutcome:
    games = recorded(records, "equilibria").get("games")
    if games is None:
        return ClaimOutcome("not tried", "no run yet")
    found = [one for one in games if one["mixed_gap"] <= SAME]
    worst = max(one["mixed_gap"] for one in games)
    why = f"an explicit mixed equilibrium in {len(found)} of {len(games)} games; largest gap {worst:.1g}"
    if len(found) == len(games):
        return ClaimOutcome("holds", why)
    return ClaimOutcome("holds in part" if found else "undecided", why)


# -- the form of mirror descent -------------------------------------------------------------------------

CHECKED = (1, 10, 100, 400)  # steps


def _form(place: Workspace) -> Measures:
    return {
        "checks": {
            "the minimiser of eta <h, rho> + KL(rho || mu)": _variational(),
            "the exact recursion of von Mises laws": _von_mises(),
            "matrix mirror descent on the nodes' payoffs": _as_a_matrix_game(),
        }
    }


def _variational(tries: int = 50) -> float:
    """How far MD_eta(mu, h) is from the minimiser, by the identity that only the minimiser mu+ satisfies:

    F(rho) - F(mu+) = KL(rho || mu+) for every rho, F(rho) = eta <h, rho> + KL(rho || mu).
    """
    rng, grid, worst = generator(SEED, Stream.STUDY, 100), Circle().grid(64), 0.0

    def draw() -> Tensor:
        return torch.from_numpy(rng.standard_normal(len(grid.weights)))

    for _ in range(tries):
        mu, rho, h, eta = Density(grid, draw()), Density(grid, draw()), draw(), rng.uniform(0.1, 2)
        best = mu.tilted(h, eta)
        objective = [eta * float(one.mean(h)) + one.divergence(mu) for one in (rho, best)]
        worst = max(worst, abs(objective[0] - objective[1] - rho.divergence(best)))
    return worst


def _von_mises() -> float:
    """Descent on densities against the recursion of two numbers a player: the largest difference of first moments."""
    grid, game, eta = Circle().grid(128), circle_game(), 0.1
    theta = hsieh_rates.starts(1)[0]
    start = von_mises(theta[0], grid), von_mises(theta[1], grid)
    worst, done = 0.0, 0
    nu, mu = theta
    for steps in CHECKED:
        last = GridDescent(eta).run(game, steps, start=start, record=()).last
        for _ in range(steps - done):
            nu, mu = von_mises_step(nu, mu, eta)
        done = steps
        for density, exact in zip(last, (nu, mu), strict=True):
            worst = max(
                worst, float((circle_moment(density) - von_mises_moment(exact)).abs().max())
            )
    return worst


def _as_a_matrix_game() -> float:
    """Descent on densities against `MirrorDescent` on the payoffs between nodes: the largest difference of masses."""
    worst = 0.0
    for game, grid in (
        (circle_game(), Circle().grid(32)),
        (squared_distance_game(), Box().grid(32)),
    ):
        rng = generator(SEED, Stream.STUDY, 200)
        start = tuple(Density(grid, torch.from_numpy(rng.standard_normal(32))) for _ in range(2))
        finite = MatrixGame(game.matrix(grid.nodes, grid.nodes))
        for steps in CHECKED:
            trace = GridDescent(0.1).run(game, steps, start=start, record=())  # type: ignore[arg-type]
            other = MirrorDescent(0.1).run(
                finite, steps, start=(start[0].masses, start[1].masses), record=1
            )
            for density, masses in zip(
                trace.average, (other.average_x[-1], other.average_y[-1]), strict=True
            ):
                worst = max(worst, float((density.masses - masses).abs().max()))
    return worst


def _judge_form(records: Records) -> ClaimOutcome:
    checks = recorded(records, "form").get("checks")
    if checks is None:
        return ClaimOutcome("not tried", "no run yet")
    why = "; ".join(f"from {name}: {value:.1g}" for name, value in checks.items())
    held = all(value <= SAME for value in checks.values())
    return ClaimOutcome("holds" if held else "does not hold", f"largest differences: {why}")


# -- the experiment -------------------------------------------------------------------------------------

TINY_TIMES, SMALL_TIMES = (316, 1000, 3162, 10_000), (1000, 3162, 10_000, 31_623, 100_000)
SCALES: dict[Size, tuple[hsieh_rates.Scale, float, tuple[int, ...], int, int]] = {
    # matrix games, minutes of a method without noise; horizons, starts and nodes on measures
    "tiny": (hsieh_rates.Scale(TINY_TIMES, 10), 0.1, (100, 316, 1000, 3162, 10_000), 10, 512),
    "small": (hsieh_rates.Scale(SMALL_TIMES, 20), 1.2, (100, 316, 1000, 3162, 10_000), 20, 768),
}


def units(size: Size) -> tuple[Unit, ...]:
    """The exact games first, then rates; there is nothing larger to do at the paper's size."""
    if size not in SCALES:
        return ()
    matrices, minutes, times, starts, nodes = SCALES[size]
    return (
        Unit("equilibria", "values and gaps of six games in closed form", 0.1, _equilibria),
        Unit("form", "three ways to write a step of mirror descent on measures", 0.1, _form),
        Unit(
            "rates-on-measures",
            f"rates on the circle and in (x - y)^2, T to {times[-1]:,}",
            0.05 * starts,
            partial(hsieh_rates.on_measures, times, starts, nodes),
        ),
        *hsieh_rates.units(matrices, minutes),
    )


def markdown_tables(records: Records, folder: Path) -> list[str]:
    """The games, and the rates."""
    games = recorded(records, "equilibria").get("games") or []
    lines = []
    if games:
        lines = [
            "| game | min max, pure | max min, pure | mixed value | gap of the mixed pair |",
            "|---|---|---|---|---|",
            *(
                f"| {g['game']} | {g['min_max']:.4g} | {g['max_min']:.4g} | {round(g['mixed_value'], 12):.4g} | "
                f"{g['mixed_gap']:.1g} |"
                for g in games
            ),
            "",
        ]
    return lines + hsieh_rates.markdown_tables(records)


THEORY = Experiment(
    "hsieh-theory",
    "Mixed equilibria and mirror descent on measures",
    HSIEH,
    (
        Claim(
            "slides, theoretical challenges",
            "A saddle point of the pure game might not exist.",
            "values in closed form. Holds: min max exceeds max min in at least one of six games, and no random "
            "strategy beats the closed forms by more than 1e-9 (else undecided). Does not hold: they agree in all six",
            _judge_pure,
        ),
        Claim(
            "slides, Glicksberg",
            "A mixed equilibrium exists.",
            "exact best responses. Holds: a pair of mixed strategies with a gap of at most 1e-9 in each of six games. "
            "In part: in some. Undecided: in none",
            _judge_mixed,
        ),
        Claim(
            "slides, theorem: form",
            "Mirror descent on measures multiplies the density by e^(-eta h), as in finite dimension.",
            "holds where each of three independent ways to compute a step or a run agrees to 1e-9; else it does not",
            _judge_form,
        ),
        Claim(
            "slides, theorem: rate of mirror descent",
            "Its averages have the finite-dimensional rate O(T^-1/2) on measures, too.",
            hsieh_rates.ON_MEASURES_RULE,
            partial(hsieh_rates.judge_on_measures, "descent"),
        ),
        Claim(
            "slides, theorem: rate of mirror-prox",
            "Its averages have the finite-dimensional rate O(1/T) on measures, too.",
            hsieh_rates.ON_MEASURES_RULE,
            partial(hsieh_rates.judge_on_measures, "prox"),
        ),
        *(
            Claim(
                f"rates: {row.title}",
                row.claim,
                hsieh_rates.RULE,
                partial(hsieh_rates.judge, row),
            )
            for row in hsieh_rates.ROWS
            if row.claim
        ),
    ),
    units,
    {
        "tiny": "Games with known solutions stand in for GANs; random matrix games for rates.",
        "small": "Games with known solutions stand in for GANs; random matrix games for rates.",
    },
    markdown_tables,
)
