"""Quadratic two-player games: every derivative is a given matrix."""

from __future__ import annotations

import torch
from torch import Tensor

from equilibrist._draws import Draw
from equilibrist._game import Constants, Plain, Players


class Quadratic(Plain):
    """f(x, y) = 1/2 x^T A x + x^T B y - 1/2 y^T C y + a^T x - c^T y; x minimises f, y maximises it.

    A is [n, n] and C [m, m] symmetric, B [n, m], a [n], c [m]. The field of own losses is
    v = (A x + B y + a, -B^T x + C y + c), so J = [[A, B], [-B^T, C]], and where J is regular the
    only stationary point is -J^{-1} (a, c). It is a Nash equilibrium iff A and C are positive
    semi-definite.
    """

    players = ("x", "y")
    zero_sum = True

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
        f = x @ (self.A @ x / 2 + self.B @ y + self.a) - y @ (self.C @ y / 2 + self.c)
        return {"x": f, "y": -f}

    def jacobian(self) -> Tensor:
        """J, dense [n + m, n + m]."""
        return torch.cat([torch.cat([self.A, self.B], 1), torch.cat([-self.B.mT, self.C], 1)])

    def equilibrium(self) -> Players:
        """The stationary point; raises torch's LinAlgError where J is singular."""
        solution = torch.linalg.solve(self.jacobian(), -torch.cat([self.a, self.c]))
        n = len(self.a)
        return {"x": {"value": solution[:n]}, "y": {"value": solution[n:]}}


def bilinear(n: int = 1, dtype: torch.dtype = torch.float64) -> Quadratic:
    """f(x, y) = x^T y: the origin is its only equilibrium, and gradient steps spiral away from it."""
    zero = torch.zeros(n, n, dtype=dtype)
    return Quadratic(zero, torch.eye(n, dtype=dtype), zero)
