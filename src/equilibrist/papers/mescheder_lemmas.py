"""Mescheder, Nowozin and Geiger 2017: the corollary of (2), the lemmas (5) and (10), by counting exceptions."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from equilibrist.core.draws import Draw, Stream, generator
from equilibrist.core.game import Constants, Plain, Players
from equilibrist.games.truth import exact_jacobian
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
from equilibrist.papers.sources import MESCHEDER
from equilibrist.spectra import eigenvalues, forecast

Matrix = NDArray[np.float64]

CASES = 2000  # random games or matrices of each kind
FEWEST = 100  # cases of a kind below which no statement about it is made
SLACK = 1e-9  # of comparisons, relative: rounding
NEAR = 1e-3  # how far on either side of a bound on the step the map is looked at, relative

# Deviations that are tried around a stationary point, and the smallest curvature that they are held to tell.
RADIUS, ANGLES, CURVATURE = 1e-4, 720, 0.05


NOT_YET = ClaimOutcome("not tried", "no record of its unit")


def _measured(records: Records, unit: str) -> Measures:
    """What a unit measured; empty where it did not."""
    return records[unit].measures if unit in records else {}


# -- the corollary of (2) ---------------------------------------------------------------------------


class Cubic(Plain):
    """f(x, y) = 1/2 x^T A x + x^T B y - 1/2 y^T C y + T(z, z, z), z = (x, y): x minimises it, y maximises it.

    The origin is stationary. A [n, n], B [n, m], C [m, m], T [n + m] * 3.
    """

    players = ("x", "y")
    zero_sum = True

    def __init__(self, A: Tensor, B: Tensor, C: Tensor, T: Tensor) -> None:
        self.A, self.B, self.C, self.T = A, B, C, T

    def value(self, x: Tensor, y: Tensor) -> Tensor:
        """f of a batch, [..., n] and [..., m] to [...]."""
        z = torch.cat([x, y], -1)
        return (
            torch.einsum("...i,ij,...j->...", x, self.A, x) / 2
            + torch.einsum("...i,ij,...j->...", x, self.B, y)
            - torch.einsum("...i,ij,...j->...", y, self.C, y) / 2
            + torch.einsum("...i,...j,...k,ijk->...", z, z, z, self.T)
        )

    def losses(
        self, players: Players, constants: Constants, draw: Draw, only: str | None = None
    ) -> dict[str, Tensor]:
        """f for x, -f for y."""
        f = self.value(players["x"]["value"], players["y"]["value"])
        return {"x": f, "y": -f}

    def local_nash(self) -> bool:
        """Whether nobody gains by moving away from the origin alone: all directions of the line or plane are tried."""
        n, m = self.B.shape
        x, y = RADIUS * directions(n), RADIUS * directions(m)
        rounding = 1e-12 * RADIUS**2
        loses = self.value(x, torch.zeros(len(x), m, dtype=torch.float64)).min() >= -rounding
        gains = self.value(torch.zeros(len(y), n, dtype=torch.float64), y).max() > rounding
        return bool(loses) and not bool(gains)


def directions(n: int) -> Tensor:
    """Unit vectors of the line or plane, [k, n]."""
    if n == 1:
        return torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    angles = 2 * torch.pi * torch.arange(ANGLES, dtype=torch.float64) / ANGLES
    return torch.stack([angles.cos(), angles.sin()], 1)


def random_game(rng: np.random.Generator, plain: bool) -> Cubic:
    """A game of one or two numbers a player. A `plain` one has no cubic terms, and curvatures that may be
    zero along a line."""
    n, m = (int(k) for k in rng.integers(1, 3, 2))

    def symmetric(k: int) -> Tensor:
        if plain:  # of rank one or none
            factor = rng.standard_normal((k, int(rng.integers(0, 2))))
            return torch.from_numpy(rng.choice([-1.0, 1.0, 1.0]) * factor @ factor.T)
        M = rng.standard_normal((k, k))
        return torch.from_numpy(M + M.T)

    T = np.zeros((n + m,) * 3) if plain else rng.standard_normal((n + m,) * 3)
    B = torch.from_numpy(rng.standard_normal((n, m)))
    return Cubic(symmetric(n), B, symmetric(m), torch.from_numpy(T))


def corollary(place: Workspace) -> Measures:
    """Counts how often the corollary's two halves fail on random zero-sum games."""
    found = {
        "nash": 0,
        "definite": 0,
        "nash_violations": 0,
        "definite_violations": 0,
        "too_flat": 0,
    }
    for i in range(2 * CASES):
        game = random_game(generator(0, Stream.STUDY, 0, 0, i), plain=i % 2 == 1)
        origin = {
            player: {"value": torch.zeros(k, dtype=torch.float64)}
            for player, k in zip(game.players, game.B.shape, strict=True)
        }
        J = exact_jacobian(game, origin).numpy()  # of own losses: -v' of the paper
        curvature = np.linalg.eigvalsh((J + J.T) / 2)
        if game.T.any() and np.abs(curvature).min() < CURVATURE:
            found["too_flat"] += 1
            continue
        nash, scale = game.local_nash(), max(1.0, float(np.abs(J).max()))
        semi = curvature.min() >= -SLACK * scale
        definite = curvature.min() > SLACK * scale
        found["nash"] += nash
        found["definite"] += bool(definite)
        found["nash_violations"] += nash and not semi
        found["definite_violations"] += bool(definite) and not nash
    return found


def judge_corollary(records: Records) -> ClaimOutcome:
    """Its rule."""
    if not (m := _measured(records, "corollary")):
        return NOT_YET
    why = (
        f"{m['nash_violations']} of {m['nash']} local Nash equilibria have a v' that is not negative "
        f"semi-definite; {m['definite_violations']} of {m['definite']} stationary points with negative "
        "definite v' are none"
    )
    if m["nash_violations"] or m["definite_violations"]:
        return ClaimOutcome("does not hold", why)
    if min(m["nash"], m["definite"]) < FEWEST:
        return ClaimOutcome("undecided", why)
    return ClaimOutcome("holds", why)


# -- lemma (5) --------------------------------------------------------------------------------------


def stable_matrix(rng: np.random.Generator, i: int) -> Matrix:
    """A matrix [n, n] whose eigenvalues have negative real part: in turn a shifted Gaussian one, one that hardly
    but rotates, and a triangular one that is far from normal."""
    n = int(rng.integers(2, 9))
    M = rng.standard_normal((n, n))
    if i % 3 == 0:
        found: Matrix = M - (np.linalg.eigvals(M).real.max() + rng.uniform(0.01, 1)) * np.eye(n)
        return found
    if i % 3 == 1:
        turning: Matrix = (M - M.T) / 2 - 10.0 ** rng.uniform(-3, 0) * np.eye(n)
        return turning
    return np.triu(M, 1) - np.diag(10.0 ** rng.uniform(-2, 1, n))


def spectral_radius(A: Matrix, h: float) -> float:
    """The largest modulus of an eigenvalue of I + h A."""
    return float(np.abs(np.linalg.eigvals(np.eye(len(A)) + h * A)).max())


def printed_step(A: Matrix) -> float:
    """The right-hand side of (5), smallest over eigenvalues."""
    found = np.linalg.eigvals(A)
    return float((2 / (1 + (found.imag / found.real) ** 2) / np.abs(found.real)).min())


def is_threshold(h: float, A: Matrix) -> bool:
    """Whether I + h A is inside of the unit disc just below h, and is not just above."""
    return spectral_radius(A, (1 - NEAR) * h) < 1 <= spectral_radius(A, (1 + NEAR) * h)


def steps(place: Workspace) -> Measures:
    """Counts matrices for which (5), and the library's h_max, are no threshold of the map's stability."""
    wrong, wrong_here = 0, 0
    for i in range(CASES):
        A = stable_matrix(generator(0, Stream.STUDY, 1, 0, i), i)
        wrong += not is_threshold(printed_step(A), A)
        wrong_here += not is_threshold(eigenvalues(torch.from_numpy(-A)).h_max, A)
    return {"cases": CASES, "violations": wrong, "library_violations": wrong_here}


def judge_step_sizes(records: Records) -> ClaimOutcome:
    """Its rule."""
    if not (m := _measured(records, "steps")):
        return NOT_YET
    why = (
        f"the bound is no threshold for {m['violations']} of {m['cases']} matrices "
        f"(`spectra.eigenvalues(...).h_max`: {m['library_violations']})"
    )
    return _counted(why, m["violations"], m["cases"])


# -- lemma (10) -------------------------------------------------------------------------------------


class Bounds(NamedTuple):
    """What the quotient q(gamma) is held against: (10) as printed, and two bounds that are right."""

    printed: float
    plain: float
    by_rotation: float


COUNTEREXAMPLE: Matrix = np.array([[0.0, 1.0], [-1.0, 0.0]])


def semidefinite_matrix(rng: np.random.Generator, i: int) -> Matrix:
    """An invertible A = K - S, K skew, S positive semi-definite: of full rank, of half of it, or zero in turn.

    Its condition is below 100: float64 tells q to a millionth where gamma is large, too.
    """
    n = 2 * int(rng.integers(1, 5))
    while True:
        M, root = rng.standard_normal((n, n)), rng.standard_normal((n, (n, n // 2, 0)[i % 3]))
        scale = 10.0 ** rng.uniform(-1, 1)
        A: Matrix = scale * ((M - M.T) / 2 - 10.0 ** rng.uniform(-2, 1) * root @ root.T)
        if np.linalg.cond(A) < 100:
            return A


def quotient(A: Matrix, gamma: float) -> float:
    """q(gamma): the largest |Im / Re| of an eigenvalue of A - gamma A^T A."""
    found = np.linalg.eigvals(A - gamma * A.T @ A)
    return float((np.abs(found.imag) / np.abs(found.real)).max())


def c_of(A: Matrix) -> float:
    """(9): min over complex v of |v*(A + A^T)v| / |v*(A - A^T)v|.

    With A = K - S this is 1 / max |eigenvalue| of S^{-1/2} i K S^{-1/2}. It is 0 where S is singular: along its kernel
    K does not vanish, for A is invertible.
    """
    S, K = -(A + A.T) / 2, (A - A.T) / 2
    low, *_, high = np.linalg.eigvalsh(S)
    if low <= 1e-12 * max(high, float(np.abs(K).max())):
        return 0.0
    L = np.linalg.cholesky(S)
    inner = np.linalg.solve(L, np.linalg.solve(L, 1j * K).conj().T)
    return float(1 / np.abs(np.linalg.eigvalsh(inner)).max())


def bounds(A: Matrix, gamma: float) -> Bounds:
    """1 / (c + 2 rho^2 gamma), 1 / (c + rho gamma), 1 / (c + 2 rho^2 gamma / |A - A^T|)."""
    c, rho = c_of(A), float(np.linalg.svd(A, compute_uv=False).min())
    turn = float(np.linalg.norm(A - A.T, 2))
    return Bounds(
        1 / (c + 2 * rho**2 * gamma),
        1 / (c + rho * gamma),
        1 / (c + 2 * rho**2 * gamma / turn),
    )


def quotients(place: Workspace) -> Measures:
    """Counts matrices whose q(gamma) is beyond the bounds, or beyond 1/1000 at gamma = 1000 / rho; and those for
    which the library's forecast is wrong."""
    over = np.zeros(3, dtype=int)
    stubborn = wrong_here = 0
    for i in range(CASES):
        rng = generator(0, Stream.STUDY, 2, 0, i)
        A, gamma = semidefinite_matrix(rng, i), float(10.0 ** rng.uniform(-2, 2))
        q = quotient(A, gamma)
        over += np.array([q > (1 + SLACK) * bound for bound in bounds(A, gamma)])
        rho = float(np.linalg.svd(A, compute_uv=False).min())
        stubborn += quotient(A, 1000 / rho) > (1 + 1e-6) / 1000
        reported = forecast(gamma, np.linalg.eigvals(-A).astype(np.complex128), 0.0, -A)
        right = abs(reported.q - q) <= 1e-6 * max(q, 1e-6)
        wrong_here += not (right and is_threshold(reported.h_max, A - gamma * A.T @ A))
    return {
        "cases": CASES,
        "printed_violations": int(over[0]),
        "plain_violations": int(over[1]),
        "rotation_violations": int(over[2]),
        "stubborn": int(stubborn),
        "library_violations": int(wrong_here),
        "counterexample": {
            "A": COUNTEREXAMPLE.tolist(),
            "gamma": 1.0,
            "q": quotient(COUNTEREXAMPLE, 1.0),
            "bound": bounds(COUNTEREXAMPLE, 1.0).printed,
        },
    }


def judge_printed(records: Records) -> ClaimOutcome:
    """The rule of (10) as printed."""
    if not (m := _measured(records, "quotients")):
        return NOT_YET
    one = m["counterexample"]
    why = (
        f"{m['printed_violations']} of {m['cases']} matrices violate it; a counterexample: "
        f"A = {one['A']}, gamma = {one['gamma']:g}: q = {one['q']:g}, the bound {one['bound']:g}"
    )
    beyond = one["q"] > (1 + SLACK) * one["bound"]
    return _counted(why, m["printed_violations"] + beyond, m["cases"])


def judge_corrected(records: Records) -> ClaimOutcome:
    """The rule of what is said after (10)."""
    if not (m := _measured(records, "quotients")):
        return NOT_YET
    why = (
        f"q is beyond 1/1000 at gamma = 1000/rho for {m['stubborn']} of {m['cases']} matrices; violations of "
        f"the corrected bounds: {m['plain_violations']} of 1/(c + rho gamma), {m['rotation_violations']} of "
        f"1/(c + 2 rho^2 gamma / |A - A^T|) (`spectra.forecast` is wrong for {m['library_violations']})"
    )
    wrong = m["stubborn"] + m["plain_violations"] + m["rotation_violations"]
    return _counted(why, wrong, m["cases"])


def _counted(why: str, violations: int, cases: int) -> ClaimOutcome:
    """Holds without exception among enough cases."""
    if violations:
        return ClaimOutcome("does not hold", why)
    return ClaimOutcome("holds" if cases >= FEWEST else "undecided", why)


# -- the experiment ---------------------------------------------------------------------------------


def units(size: Size) -> tuple[Unit, ...]:
    """Three counts; they have one size."""
    if size != "tiny":
        return ()
    return (
        Unit("corollary", f"(2) on {2 * CASES} random zero-sum games", 0.4, corollary),
        Unit("steps", f"(5) on {CASES} random matrices", 0.1, steps),
        Unit("quotients", f"(10) on {CASES} random matrices", 0.1, quotients),
    )


def _rule(what: str) -> str:
    return f"does not hold where {what}; holds where there is none among at least {FEWEST} cases; else undecided"


LEMMAS = Experiment(
    "mescheder-lemmas",
    "Local Nash equilibria, steps and quotients: the lemmas by brute force",
    MESCHEDER,
    (
        Claim(
            "Corollary of (2)",
            "In zero-sum games v' is negative semi-definite at every local Nash equilibrium, and a "
            "stationary point with negative definite v' is one.",
            _rule(
                "either half has an exception among random games, Nash equilibria told by trying deviations"
            ),
            judge_corollary,
        ),
        Claim(
            "Lemma, (5)",
            "With eigenvalues of negative real part, I + hA is inside the unit ball iff h is below the bound "
            "of (5).",
            _rule(
                "I + hA is not stable just below the bound, or is just above it, for a random matrix"
            ),
            judge_step_sizes,
        ),
        Claim(
            "Lemma, (10) as printed",
            "q(gamma) <= 1 / (c + 2 rho^2 gamma).",
            _rule(
                "an eigenvalue of A - gamma A^T A has a larger |Im / Re|, for a random matrix or the counterexample"
            ),
            judge_printed,
        ),
        Claim(
            "Lemma, after (10)",
            "The quotient of imaginary to real part can be made arbitrarily small by the choice of gamma.",
            _rule(
                "q is beyond 1/1000 at gamma = 1000/rho, or beyond one of the corrected bounds, for a random "
                "matrix"
            ),
            judge_corrected,
        ),
    ),
    units,
    {"tiny": "The slides prove, here exceptions are looked for: 1 to 8 dimensions, float64."},
)
