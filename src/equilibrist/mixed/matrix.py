"""Finite zero-sum games in mixed strategies: the payoff matrix, its value by linear programming, the duality gap."""

from __future__ import annotations

import importlib
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from equilibrist.core.draws import Stream, generator
from equilibrist.errors import GameError, RequirementError, did_you_mean

LAWS = ("uniform", "normal", "sign", "skew")


@dataclass(frozen=True, eq=False)
class Solution:
    """An optimal pair of mixed strategies.

    Attributes:
        value: x^T M y, in units of the payoff. Every pair of optimal strategies has it.
        x: an optimal strategy [n] of the player who minimises.
        y: an optimal strategy [m] of the player who maximises.
    """

    value: float
    x: Tensor
    y: Tensor


@dataclass(frozen=True, eq=False)
class MatrixGame:
    """x pays x^T M y: x in the simplex of n strategies minimises it, y in that of m maximises it.

    Attributes:
        payoff: M [n, m], a tensor or an array; kept as a copy, in float64 unless it is a float32 tensor or array.

    Raises:
        ValueError: M is not a matrix of finite real numbers with at least one row and one column.

    Examples:
        >>> import torch
        >>> from equilibrist import MatrixGame
        >>> best = MatrixGame(torch.tensor([[1.0, -1.0], [-1.0, 1.0]])).solve()  # matching pennies
        >>> abs(round(float(best.value), 6)), [round(float(p), 6) for p in best.x]
        (0.0, [0.5, 0.5])
    """

    payoff: Tensor

    def __post_init__(self) -> None:
        object.__setattr__(self, "payoff", _matrix(self.payoff))

    @classmethod
    def matching_pennies(cls) -> MatrixGame:
        """x pays 1 where the pennies match and gets 1 where they do not: value 0 at (1/2, 1/2), for both."""
        return cls(torch.tensor([[1.0, -1.0], [-1.0, 1.0]], dtype=torch.float64))

    @classmethod
    def rock_paper_scissors(cls) -> MatrixGame:
        """The loser pays 1, in the order rock, paper, scissors: value 0, (1/3, 1/3, 1/3) for both."""
        rows = [[0.0, 1.0, -1.0], [-1.0, 0.0, 1.0], [1.0, -1.0, 0.0]]
        return cls(torch.tensor(rows, dtype=torch.float64))

    @classmethod
    def random(cls, n: int, m: int, seed: int = 0, law: str = "uniform") -> MatrixGame:
        """Independent entries, in float64: `law` is "uniform" (on [-1, 1]), "normal" (N(0, 1)), "sign" (-1 or 1, a
        half each: degenerate games) or "skew" (n = m; (A - A^T) / sqrt(2), A normal: a symmetric game, value 0)."""
        if law not in LAWS:
            raise ValueError(
                f"unknown law {law!r} of random games{did_you_mean(law, LAWS)}: choose of {', '.join(LAWS)}"
            )
        if n < 1 or m < 1 or (law == "skew" and n != m):
            square = " and as many of both for law 'skew'" if law == "skew" else ""
            raise ValueError(
                f"random games need at least one strategy a player{square}, not {n} and {m}"
            )
        rng = generator(seed, Stream.DATA)
        if law == "uniform":
            return cls(torch.from_numpy(rng.uniform(-1.0, 1.0, (n, m))))
        if law == "sign":
            return cls(torch.from_numpy(2.0 * rng.integers(0, 2, (n, m)) - 1.0))
        normal = rng.standard_normal((n, m))
        return cls(torch.from_numpy((normal - normal.T) / np.sqrt(2) if law == "skew" else normal))

    @property
    def n(self) -> int:
        """Strategies of x."""
        return self.payoff.shape[0]

    @property
    def m(self) -> int:
        """Strategies of y."""
        return self.payoff.shape[1]

    @property
    def spread(self) -> float:
        """R = max M - min M, the number that steps and bounds are stated in."""
        low, high = self.payoff.aminmax()
        return float(high) - float(low)

    def value(self) -> float:
        """min_x max_y x^T M y = max_y min_x x^T M y (von Neumann 1928), as `solve` finds it."""
        return self.solve().value

    def solve(self) -> Solution:
        """The value and an optimal strategy for each player, by linear programming (HiGHS, in float64 on the CPU).

        x and v solve min v subject to (M^T x)_j <= v for all j, x in the simplex; y are the multipliers of these
        constraints. A degenerate game has many solutions: this is one.

        Raises:
            GameError: the gap of the solution is above 1e-8 R: the solver has failed.
        """
        from scipy.optimize import linprog

        M = self.payoff.detach().double().cpu().numpy()
        n, m = M.shape
        low, high = float(M.min()), float(M.max())
        # Payoffs in [-1/2, 1/2]: tolerances of the solver are absolute.
        scaled = (M - (low + (high - low) / 2)) / ((high - low) or 1.0)
        found: Any = linprog(
            np.append(np.zeros(n), 1.0),
            A_ub=np.hstack([scaled.T, -np.ones((m, 1))]),
            b_ub=np.zeros(m),
            A_eq=np.append(np.ones(n), 0.0)[None],
            b_eq=[1.0],
            bounds=[(0.0, None)] * n + [(None, None)],
            method="highs",
            options={"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10},
        )
        if found.x is None:
            raise GameError(
                f"the linear program of the {n} x {m} game was not solved ({_line(found.message)}): "
                "scale the payoffs, or use MirrorProx"
            )
        x, y = _simplex(found.x[:n]), _simplex(-found.ineqlin.marginals)
        gap = float((scaled.T @ x).max() - (scaled @ y).min())
        if not gap <= 1e-8:
            raise GameError(
                f"the linear program of the {n} x {m} game left a gap of {gap:.1e} R ({_line(found.message)}): "
                "scale the payoffs, or use MirrorProx"
            )
        return Solution(
            float(x @ M @ y),
            torch.from_numpy(x).to(self.payoff),
            torch.from_numpy(y).to(self.payoff),
        )

    def gap(self, x: Tensor, y: Tensor) -> Tensor:
        """The duality gap max_j (M^T x)_j - min_i (M y)_i >= 0, in units of the payoff; 0 exactly at optimal pairs.

        x [..., n] and y [..., m] are mixed strategies; leading dimensions are a batch. Rounding may leave -1e-16 R.
        """
        rows, columns, _ = self._sides(x, y)
        return columns.amax(-1) - rows.amin(-1)

    def exploitability(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """What each player could gain alone: x^T M y - min_i (M y)_i for x, max_j (M^T x)_j - x^T M y for y.

        (x, y) is an epsilon-Nash equilibrium iff both are at most epsilon; their sum is the gap.
        """
        rows, columns, paid = self._sides(x, y)
        return paid - rows.amin(-1), columns.amax(-1) - paid

    def _sides(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """M y [..., n], M^T x [..., m] and x^T M y [...]."""
        x = strategy("x", x, self.n).to(self.payoff)
        y = strategy("y", y, self.m).to(self.payoff)
        columns = x @ self.payoff
        return y @ self.payoff.mT, columns, (columns * y).sum(-1)


def strategy(name: str, p: Tensor, size: int) -> Tensor:
    """`p` where it is a batch [..., size] of probability vectors; raises ValueError where it is not."""
    p = torch.as_tensor(p)
    if not p.ndim or p.shape[-1] != size:
        raise ValueError(
            f"{name} must have {size} probabilities in its last dimension, not shape {list(p.shape)}"
        )
    tolerance = 1e-5  # what is left of a sum in float32
    if not bool((p >= -tolerance).all()) or not bool(((p.sum(-1) - 1).abs() <= tolerance).all()):
        raise ValueError(
            f"{name} is no mixed strategy: probabilities must be at least 0 and sum to 1"
        )
    return p


def from_nashpy(game: Any) -> MatrixGame:
    """The matrix game of a `nashpy.Game`. Its row player, who maximises A, becomes x, who pays M = -A.

    Args:
        game: the game.

    Returns:
        The game.

    Raises:
        GameError: the game is not zero-sum.
        RequirementError: nashpy is not installed.
    """
    nashpy = _library("nashpy")
    if not isinstance(game, nashpy.Game):
        raise GameError(f"from_nashpy needs a nashpy.Game, not {type(game).__name__}")
    A, B = (np.asarray(side, dtype=np.float64) for side in game.payoff_matrices)
    return MatrixGame(torch.from_numpy(_cost("nashpy", A, B)))


def to_nashpy(game: MatrixGame) -> Any:
    """The `nashpy.Game` whose row player is x and gets -M, and whose column player is y and gets M.

    Args:
        game: the game.

    Returns:
        The same game of nashpy's.
    """
    M = game.payoff.detach().double().cpu().numpy()
    return _library("nashpy").Game(-M, M)


def from_gambit(game: Any) -> MatrixGame:
    """The matrix game of a `pygambit.Game` of two players: the first becomes x, who pays M = minus its payoff.

    A game in extensive form counts by its strategies.

    Args:
        game: the game, with rational payoffs.

    Returns:
        The game.

    Raises:
        GameError: the game has not two players or is not zero-sum.
        RequirementError: pygambit is not installed.
    """
    gambit = _library("pygambit")
    if not isinstance(game, gambit.Game):
        raise GameError(f"from_gambit needs a pygambit.Game, not {type(game).__name__}")
    if len(game.players) != 2:
        raise GameError(
            f"the Gambit game has {len(game.players)} player(s): a matrix game needs two, "
            "so give the others fixed strategies first"
        )
    A, B = (side.astype(np.float64) for side in game.to_arrays(dtype=float))
    return MatrixGame(torch.from_numpy(_cost("Gambit", A, B)))


def to_gambit(game: MatrixGame) -> Any:
    """The `pygambit.Game` in strategic form whose first player is x and gets -M, and whose second is y and gets M.

    Args:
        game: the game.

    Returns:
        The same game of pygambit's.
    """
    M = game.payoff.detach().double().cpu().numpy()
    return _library("pygambit").Game.from_arrays(-M, M, title="zero-sum matrix game")


def _cost(kind: str, A: NDArray[np.float64], B: NDArray[np.float64]) -> NDArray[np.float64]:
    """What the first player pays, -A, where A + B = 0 to rounding."""
    total = A + B
    size = max(float(np.abs(A).max(initial=0.0)), float(np.abs(B).max(initial=0.0)))
    if np.abs(total).max(initial=0.0) <= 1e-12 * size:
        return -A
    i, j = (int(k) for k in np.unravel_index(np.abs(total).argmax(), total.shape))
    if np.ptp(total) <= 1e-12 * size:
        remedy = f"subtract {total[i, j]:g} from one player's payoffs, which changes no equilibrium"
    else:
        remedy = "only zero-sum games are matrix games; keep a general one where it is"
    raise GameError(
        f"the {kind} game is not zero-sum: payoffs {A[i, j]:g} and {B[i, j]:g} at strategies ({i}, {j}); {remedy}"
    )


def _library(name: str) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the library's own imports
            return importlib.import_module(name)
    except ImportError:
        raise RequirementError(f"{name} is not installed: pip install {name}") from None


def _matrix(payoff: Any) -> Tensor:
    try:
        M = (
            payoff.detach().clone()
            if isinstance(payoff, Tensor)
            else torch.tensor(np.asarray(payoff))
        )
    except (TypeError, ValueError):
        raise ValueError("MatrixGame needs a payoff matrix [n, m] of real numbers") from None
    if M.is_complex():
        raise ValueError(
            "MatrixGame needs a payoff matrix [n, m] of real numbers, not complex ones"
        )
    if M.dtype not in (torch.float32, torch.float64):
        M = M.to(torch.float64)
    if M.ndim != 2 or not M.numel():
        raise ValueError(
            f"MatrixGame needs a payoff matrix [n, m] with at least one entry, not shape {list(M.shape)}"
        )
    if not bool(M.isfinite().all()):
        i, j = (int(k) for k in (~M.isfinite()).nonzero()[0])
        raise ValueError(f"MatrixGame's payoff ({i}, {j}) is {float(M[i, j])}: all must be finite")
    low, high = M.aminmax()
    if not bool((high - low).isfinite()):
        raise ValueError(
            f"MatrixGame's payoffs reach from {float(low):.1e} to {float(high):.1e}, "
            f"too far for {str(M.dtype).removeprefix('torch.')}: scale them"
        )
    return M.contiguous()


def _simplex(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """`p` without the solver's rounding: nothing below 0, sum 1."""
    kept: NDArray[np.float64] = np.maximum(p, 0.0)
    kept /= kept.sum()
    return kept


def _line(message: object) -> str:
    return " ".join(str(message).split()).rstrip(".")
