"""S(lambda) of `_schur` by products, in subspaces of both players that grow by residuals."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from equilibrist import tree
from equilibrist.checks._linear import ValueHessian, orthogonal
from equilibrist.checks._schur import ReducedSchur

FEWEST = 8  # directions of the leader, where it has as many
_PIECE = 2**20  # entries that are held in float64 at once
LARGE = 5e6  # parameters beyond which directions are kept in float32, and fewer of them


@dataclass(frozen=True, eq=False)
class PursuitState:
    """Where a pursuit stands at one lambda.

    Attributes:
        value, u, w: smallest eigenvalue of S over the subspaces, its direction [n_t], the answer to it [n_c].
        leader: |S u - value u|, the answer taken as it is.
        follower: |V_wt u - K w| / |V_wt u|, K = c + 2 lambda M + damping.
        missed: bound on what a full answer would add to `value`, |V_wt u - K w|^2 / (smallest eigenvalue of K).
        residuals: S u - value u, V_wt u - K w; none where they are not needed any more.
    """

    lam: float
    value: float
    u: Tensor
    w: Tensor
    leader: float
    follower: float
    missed: float
    residuals: tuple[Tensor, ...]


class Pursuit:
    """S(lambda) in subspaces of both players that grow by residuals (a Davidson method for a saddle).

    At the critical direction u of the small problem, the follower's subspace gains V_wt u - K w (for one u
    and one lambda: the conjugate gradient method) and the leader's S u - value u (with a full answer: Lanczos'
    method). Every product serves all lambdas.

    Args:
        value: products with V.
        sobolev: products with M; None leaves it out.
        damping: is added to c, so that eigenvalues below zero do not answer.
        least: a lower bound of the smallest eigenvalue of c + damping.
        budget: products on one minibatch.

    """

    def __init__(
        self,
        value: ValueHessian,
        sobolev: Callable[[Tensor], Tensor] | None,
        damping: float,
        least: float,
        budget: int,
    ) -> None:
        self.value, self.sobolev, self.damping, self.least = value, sobolev, damping, least
        self.budget, self.products, self.failed = budget, 0, False
        # By direction: u, V_tt u, V_wt u of the leader; q, (c + damping) q, M q, V_tw q of the follower.
        self.U, self.AU, self.GU = (list[Tensor]() for _ in range(3))
        self.Q, self.CQ, self.MQ, self.BQ = (list[Tensor]() for _ in range(4))
        self._a, self._g, self._c, self._m = (_Products() for _ in range(4))
        self._cost = len(value.draws)
        # A vector of the follower is kept four times, one of the leader three times: stay within a gigabyte or so.
        large = value.leader.n + value.follower.n > LARGE
        self._kept = torch.float32 if large else torch.float64
        self.most = max(4 if large else 8, int(4e7 / max(value.follower.n, 1)))
        self.fewest = 4 if large else FEWEST

    def sound(self) -> bool:
        """Whether every product was finite: otherwise nothing here should be used."""
        return not self.failed

    def add_leader(self, u: Tensor) -> bool:
        """Take a direction of the leader in; False where nothing of it is new."""
        new = _normal(u, self.U)
        if new is None:
            return False
        a, g = self.value.of_leader(new)
        self.products += self._cost
        if not tree.all_finite(a, g):
            self.failed = True
            return False
        self._append((self.U, self.AU, self.GU), (new, a, g))
        del new, a, g
        self._a.extend(self.U, self.AU)
        self._g.extend(self.Q, self.GU)
        return True

    def add_follower(self, q: Tensor) -> bool:
        """Take a direction of the follower in; False where nothing of it is new."""
        new = _normal(q, self.Q)
        if new is None or len(self.Q) >= self.most:
            return False
        b, c = self.value.of_follower(new)
        m = torch.zeros_like(new) if self.sobolev is None else self.sobolev(new)
        self.products += self._cost if self.sobolev is None else 2 * self._cost
        if not tree.all_finite(b, c, m):
            self.failed = True
            return False
        self._append(
            (self.Q, self.CQ, self.MQ, self.BQ), (new, c.add_(new, alpha=self.damping), m, b)
        )
        del new, b, c, m  # kept in less precision where they are large
        self._c.extend(self.Q, self.CQ)
        self._m.extend(self.Q, self.MQ)
        self._g.extend(self.Q, self.GU)
        return True

    def _append(self, lists: Sequence[list[Tensor]], new: Sequence[Tensor]) -> None:
        for held, one in zip(lists, new, strict=True):
            held.append(one.to(self._kept))

    def _blocks(self) -> tuple[Tensor, Tensor, Tensor]:
        """a, g and c over the subspaces, the damping in c."""
        like = self.U[0]
        a, g, c = (block.on(like) for block in (self._a, self._g, self._c))
        if not self.Q:
            return (a + a.mT) / 2, a.new_zeros(0, len(a)), a.new_zeros(0, 0)
        return (a + a.mT) / 2, g, (c + c.mT) / 2

    def blocks(self) -> tuple[Tensor, Tensor, Tensor]:
        """a, g and c over the subspaces (see `ReducedSchur`), without the damping."""
        a, g, c = self._blocks()
        return a, g, c - self.damping * torch.eye(len(c), dtype=c.dtype, device=c.device)

    def small(self) -> ReducedSchur:
        """The blocks over the subspaces."""
        a, g, c = self._blocks()
        if not self.Q:
            return ReducedSchur(a, g, c)
        m = self._m.on(self.U[0])
        return ReducedSchur(a, g, c, (m + m.mT) / 2)

    def state(self, lam: float, small: ReducedSchur | None = None) -> PursuitState:
        """The critical direction at lambda, and how far it is from that of the whole spaces."""
        found = (small or self.small()).at(lam)
        # In place: vectors of this size are most of what an audit of a large pair holds.
        u, turn = _combined(self.U, found.y), _combined(self.AU, found.y)
        rest = _combined(self.GU, found.y)
        size = float(rest.norm())
        if self.Q:
            w = _combined(self.Q, found.z)
            _combined(self.BQ, found.z, turn)
            _combined(self.CQ, -found.z, rest)
            if math.isfinite(lam):
                _combined(self.MQ, -2 * lam * found.z, rest)
        else:
            w = torch.zeros_like(rest)
        turn.sub_(u, alpha=found.value)
        left = float(rest.norm())
        return PursuitState(
            lam,
            found.value,
            u,
            w,
            float(turn.norm()),
            left / size if size > 0 else 0.0,
            missed(left**2, self.least),
            (turn, rest),
        )

    def along(self, y: Tensor, lam: float, small: ReducedSchur) -> tuple[float, float]:
        """u^T S(lambda) u for u = U y over the follower's subspace, and the bound of what a full answer adds."""
        d = (1 - small.b + 2 * lam / small.tau * small.b).clamp_min(1e-300)
        coupled = small.h @ y
        value = float(y @ small.a @ y + (coupled.square() / d).sum())
        rest = _combined(self.GU, y)
        if self.Q:
            z = small.V @ (coupled / d)
            _combined(self.CQ, -z, rest)
            _combined(self.MQ, -2 * lam * z, rest)
        return value, missed(float(rest.square().sum()), self.least)

    @property
    def spent(self) -> bool:
        """Whether the next direction would exceed the budget, or a product was not finite."""
        return self.failed or self.products + 2 * self._cost > self.budget

    def grow(self, state: PursuitState, cut: float) -> bool:
        """One more direction where the state is furthest from settled; False where it is settled, or nothing
        more can be had."""
        turn, rest = state.residuals
        wants_answer = not answered(state, cut)
        # A few directions say nothing of an eigenvalue, however small the residual.
        wants_turn = len(self.U) < self.fewest or not turned(state, cut)
        if self.spent or not (wants_answer or wants_turn):
            return False
        # The leader's residual means something only once the answer is known.
        if wants_answer and self.add_follower(rest):
            return True
        return wants_turn and self.add_leader(turn)


def missed(square: float, least: float) -> float:
    """The bound of r^T K^-1 r, from |r|^2 and the least eigenvalue of K: what a full answer would add."""
    return square / least if least > 0 else (math.inf if square else 0.0)


def answered(state: PursuitState, cut: float) -> bool:
    """Whether the answer is known: its equation to 0.1%, or what it misses is nothing; or it does not matter, for
    an answer only raises an eigenvalue that is above -cut already."""
    if state.follower <= 1e-3 or state.missed <= 0.05 * max(cut, abs(state.value)):
        return True
    return (math.isinf(state.lam) or state.lam == 0) and state.value >= -cut


def turned(state: PursuitState, cut: float) -> bool:
    """Whether the direction is known: its eigenvalue to 5%, or above -cut for certain."""
    return state.leader <= 0.05 * max(abs(state.value), cut)


class _Products:
    """The inner products of two lists of vectors, x_i^T y_j, which grows as they do."""

    def __init__(self) -> None:
        self._rows: list[list[float]] = []

    def extend(self, left: Sequence[Tensor], right: Sequence[Tensor]) -> None:
        """Take in what was appended to either list."""
        for i, x in enumerate(left):
            if i == len(self._rows):
                self._rows.append([])
            row = self._rows[i]
            row += [_inner(x, y) for y in right[len(row) :]]

    def on(self, like: Tensor) -> Tensor:
        """[len(left), len(right)], float64, where `like` is."""
        return torch.tensor(self._rows, dtype=torch.float64, device=like.device)


def _inner(x: Tensor, y: Tensor) -> float:
    if x.dtype == torch.float64:
        return float(x @ y)
    pieces = zip(x.split(_PIECE), y.split(_PIECE), strict=True)
    return sum(float(a.double() @ b.double()) for a, b in pieces)


def _normal(x: Tensor, basis: list[Tensor]) -> Tensor | None:
    size = float(x.norm())
    if not size > 0 or size - size != 0:
        return None
    rest = orthogonal(x / size, basis)
    left = float(rest.norm())
    return rest / left if left > 1e-10 else None


def _combined(vectors: list[Tensor], weights: Tensor, into: Tensor | None = None) -> Tensor:
    """The weighted sum, added to `into` in place where that is given."""
    total = torch.zeros_like(vectors[0], dtype=torch.float64) if into is None else into
    for vector, weight in zip(vectors, weights, strict=True):
        total.add_(vector, alpha=float(weight))
    return total
