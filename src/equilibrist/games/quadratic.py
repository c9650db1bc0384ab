"""Quadratic two-player games: every derivative is a given matrix."""

from __future__ import annotations

import torch
from torch import Tensor

from equilibrist.core.draws import Draw
from equilibrist.core.game import Constants, Players
from equilibrist.games.truth import Analytic, BestResponse, Point, classify


class Quadratic(Analytic):
    """f(x, y) = 1/2 x^T A x + x^T B y - 1/2 y^T C y + a^T x - c^T y; x minimises f, y maximises it.

    A is [n, n] and C [m, m] symmetric, B [n, m], a [n], c [m]. The field of own losses is
    v = (A x + B y + a, -B^T x + C y + c), so J = [[A, B], [-B^T, C]], and where J is regular the
    only stationary point is -J^{-1} (a, c). It is a Nash equilibrium iff A and C are positive
    semi-definite, and a strict local minimax point where x leads iff C and A + B C^{-1} B^T are positive
    definite (Jin, Netrapalli and Jordan 2020, Proposition 19).

    Args:
        A, B, C: the matrices.
        a, c: linear terms; None stands for zero.

    Examples:
        >>> import torch
        >>> from equilibrist import Quadratic
        >>> one = torch.eye(1, dtype=torch.float64)
        >>> game = Quadratic(one, 2 * one, one)
        >>> game.jacobian().tolist()
        [[1.0, 2.0], [-2.0, 1.0]]
    """

    players = ("x", "y")
    zero_sum = True
    leader = "x"
    linear = True

    def __init__(
        self, A: Tensor, B: Tensor, C: Tensor, a: Tensor | None = None, c: Tensor | None = None
    ) -> None:
        n, m = B.shape
        if A.shape != (n, n) or C.shape != (m, m):
            raise ValueError(
                f"Quadratic needs A [{n}, {n}] and C [{m}, {m}] for B [{n}, {m}], "
                f"not {list(A.shape)} and {list(C.shape)}"
            )
        for name, vector, size in (("a", a, n), ("c", c, m)):
            if vector is not None and vector.shape != (size,):
                raise ValueError(
                    f"Quadratic needs {name} [{size}] for B [{n}, {m}], not {list(vector.shape)}"
                )
        self.A, self.B, self.C = (A + A.mT) / 2, B, (C + C.mT) / 2
        self.a = B.new_zeros(n) if a is None else a
        self.c = B.new_zeros(m) if c is None else c

    def losses(
        self, players: Players, constants: Constants, draw: Draw, only: str | None = None
    ) -> dict[str, Tensor]:
        x, y = players["x"]["value"], players["y"]["value"]
        A, B, C, a, c = self._like(x)
        f = x @ (A @ x / 2 + B @ y + a) - y @ (C @ y / 2 + c)
        return {"x": f, "y": -f}

    def _like(self, x: Tensor) -> tuple[Tensor, ...]:
        """A, B, C, a and c as numbers of the players' kind, on their device."""
        given = (self.A, self.B, self.C, self.a, self.c)
        if x.dtype == self.B.dtype and x.device == self.B.device:
            return given
        return tuple(t.to(x.device, x.dtype) for t in given)

    def best_response(self, player: str, players: Players) -> BestResponse:
        """The minimiser of the player's own loss 1/2 z^T H z + g^T z, -H^+ g; where H has a negative eigenvalue, or
        g a part in its null space, a point 10^6 away along it: the loss falls without bound."""
        x, y = players["x"]["value"], players["y"]["value"]
        A, B, C, a, c = self._like(x)
        H, g, here = (A, B @ y + a, x) if player == "x" else (C, c - B.mT @ x, y)
        values, vectors = torch.linalg.eigh(H)
        size = max(float(values.abs().max()), float(g.abs().max()), 1e-300)
        if values[0] < -1e-12 * size:
            downhill = vectors[:, 0] * (1.0 if g @ vectors[:, 0] <= 0 else -1.0)
            return BestResponse({"value": here + 1e6 * downhill}, best=False)
        flat = vectors[:, values <= 1e-12 * size]
        pull = flat @ (flat.mT @ g)
        if float(pull.abs().max()) > 1e-12 * size:
            return BestResponse({"value": here - 1e6 * pull / pull.norm()}, best=False)
        # The minimiser nearest to where the player stands.
        return BestResponse({"value": here - torch.linalg.pinv(H, rtol=1e-12) @ (H @ here + g)})

    def jacobian(self, players: Players | None = None) -> Tensor:
        """J, dense [n + m, n + m]: the same everywhere."""
        return torch.cat([torch.cat([self.A, self.B], 1), torch.cat([-self.B.mT, self.C], 1)])

    def equilibrium(self) -> Players:
        """The stationary point; raises torch's LinAlgError where J is singular."""
        return self._players(torch.linalg.solve(self.jacobian(), -torch.cat([self.a, self.c])))

    def points(self) -> tuple[Point, ...]:
        """The stationary point; where J is singular, the one of least norm out of an affine set of them,
        or none. The kind is that of the eigenvalues of A, C and the Schur complement."""
        solution = self._least()
        if solution is None:
            return ()
        sizes = {"x": len(self.a), "y": len(self.c)}
        kind, attracts, leaders = classify(self.jacobian(), sizes, self.leader)
        return (Point(self._players(solution), kind, attracts, leaders),)

    @property
    def why_none(self) -> str:
        """Why there is no stationary point; "" where there is one."""
        if self._least() is not None:
            return ""
        return "J is singular and the offset (a, c) lies outside its range: v vanishes nowhere"

    def _least(self) -> Tensor | None:
        J, offset = self.jacobian(), torch.cat([self.a, self.c])
        solution = -torch.linalg.pinv(J) @ offset
        size = float(J.abs().max() * solution.abs().max() + offset.abs().max())
        return solution if float((J @ solution + offset).abs().max()) <= 1e-9 * size else None

    def _players(self, flat: Tensor) -> Players:
        n = len(self.a)
        return {"x": {"value": flat[:n]}, "y": {"value": flat[n:]}}


def bilinear(n: int = 1, dtype: torch.dtype = torch.float64) -> Quadratic:
    """f(x, y) = x^T y: the origin is its only equilibrium, and gradient steps spiral away from it.

    Args:
        n: dimension of x and of y.
        dtype: of the matrices.

    Returns:
        The game.

    Examples:
        >>> from equilibrist.games import bilinear
        >>> bilinear().jacobian().abs().tolist()  # [[0, 1], [-1, 0]]: the players circle
        [[0.0, 1.0], [1.0, 0.0]]
    """
    zero = torch.zeros(n, n, dtype=dtype)
    return Quadratic(zero, torch.eye(n, dtype=dtype), zero)


def false_attractor(dtype: torch.dtype = torch.float64) -> Quadratic:
    """f(x, y) = 3 x^2 + y^2 + 4 x y, y maximises: gradient steps and most related methods converge to the
    origin, where f is smallest in y: neither Nash nor minimax (Wang, Zhang and Ba 2020, section 5.1).

    Args:
        dtype: of the matrices.

    Returns:
        The game, with the origin as its point.
    """
    return _of_two(6.0, 4.0, -2.0, dtype)


def hidden_minimax(dtype: torch.dtype = torch.float64) -> Quadratic:
    """f(x, y) = -3 x^2 - y^2 + 4 x y, y maximises: the origin is a local (and global) minimax point,
    max_y f = x^2, no Nash equilibrium, and gradient steps leave it (Wang, Zhang and Ba 2020, section 5.1).

    Args:
        dtype: of the matrices.

    Returns:
        The game, with the origin as its point.
    """
    return _of_two(-6.0, 4.0, 2.0, dtype)


def _of_two(a: float, b: float, c: float, dtype: torch.dtype) -> Quadratic:
    return Quadratic(*(torch.full((1, 1), value, dtype=dtype) for value in (a, b, c)))
