"""Products with second derivatives of a pair's losses where its players may move, and extreme eigenvalues by them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from equilibrist import tree
from equilibrist.checks._second_order import free, score_draws
from equilibrist.checks.context import AuditContext, Tick, order_of
from equilibrist.core.draws import Address, Draw, normal
from equilibrist.core.exact import followed
from equilibrist.core.game import Constants, Players
from equilibrist.core.jacobian import HessianOperator, JacobianOperator
from equilibrist.formulations.gradient import input_gradient
from equilibrist.spectra import density

DENSE = 2500
ZERO = 1e-9  # eigenvalues below this, relative to the largest, are zero to rounding
PRODUCT = 2.5  # minibatch gradients that one J^T u on one minibatch costs


Apply = Callable[[Tensor], Tensor]


class Part:
    """Flat vectors over the free coordinates of one player, to and from vectors over all of them."""

    def __init__(self, context: AuditContext, player: str, whole: bool = False) -> None:
        self.player = player
        mask = free(context).masks[player]
        self.mask = torch.ones_like(mask) if whole else mask
        self.n = int(self.mask.sum())

    def flat(self, x: Tensor) -> Tensor:
        """All coordinates [n_p] of a vector [n] over the free ones."""
        full = torch.zeros(len(self.mask), dtype=torch.float64, device=self.mask.device)
        full[self.mask] = x.to(full)
        return full


class Hessian:
    """x -> H_p x for vectors over the free coordinates: the player's own Hessian, the others resting,
    averaged over draws."""

    def __init__(
        self,
        context: AuditContext,
        player: str,
        draws: Sequence[Draw],
        tick: Tick,
        whole: bool = False,
    ) -> None:
        self.part, self.tick, self.cost = Part(context, player, whole), tick, PRODUCT * len(draws)
        self.n = self.part.n
        self._operator = HessianOperator(context.smooth(), *context.wide, draws, player)

    def __call__(self, x: Tensor) -> Tensor:
        self.tick(self.cost)
        return (self._operator @ self.part.flat(x))[self.part.mask]


class ValueHessian:
    """Products with the second derivatives of the zero-sum V = V(t, w), t the leader's and w the
    follower's free coordinates, averaged over draws.

    For J = [[V_tt, V_tw], [-V_wt, -V_ww]] the cheap product J^T gives them all:
    J^T (u, 0) = (V_tt u, V_wt u) and J^T (0, q) = (-V_tw q, -V_ww q).
    """

    def __init__(self, context: AuditContext, draws: Sequence[Draw], tick: Tick) -> None:
        self.tick, self.draws = tick, draws
        self.leader, self.follower = (Part(context, player) for player in order_of(context.game))
        self._operator = JacobianOperator(context.smooth(value=True), *context.wide, draws).T

    def of_leader(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """V_tt u and V_wt u."""
        return self._pull(self.leader, u)

    def of_follower(self, q: Tensor) -> tuple[Tensor, Tensor]:
        """V_tw q and -V_ww q."""
        coupled, own = self._pull(self.follower, q)
        return -coupled, own

    def _pull(self, part: Part, x: Tensor) -> tuple[Tensor, Tensor]:
        self.tick(PRODUCT * len(self.draws))
        full = torch.zeros(self._operator.shape[0], dtype=torch.float64, device=part.mask.device)
        full[self._span(part)] = part.flat(x)
        image = self._operator @ full
        led, followed = (image[self._span(p)][p.mask] for p in (self.leader, self.follower))
        return led, followed

    def _span(self, part: Part) -> slice:
        return self._operator.block(part.player, part.player)[0]


class Sobolev:
    """q -> M q, M = E[(d_w grad_x D)^T (d_w grad_x D)] over real samples, averaged over draws: the
    Hessian of 1/2 ||D_w' - D_w||^2 at w' = w, ||D||^2 = E |grad_x D(X)|^2 (Farnia and Ozdaglar 2020,
    equation 15). Singular vectors of normalised weights follow the weights.

    For a GAN with one critic that scores each sample by itself.
    """

    def __init__(self, context: AuditContext, draws: Sequence[Draw], tick: Tick) -> None:
        players, constants = context.wide
        self.part, self.tick, self.draws = Part(context, "critic"), tick, draws
        self.like = players["critic"]
        self._graphs = [self._graph(context, players, constants, draw) for draw in draws]

    def _graph(
        self, context: AuditContext, players: Players, constants: Constants, draw: Draw
    ) -> tuple[Tensor, list[Tensor], Tensor, list[Tensor]]:
        active = {k: t.detach().requires_grad_() for k, t in players["critic"].items()}
        inputs = list(active.values())
        with torch.enable_grad():
            seen = {
                **constants,
                "critic": followed(active, constants["critic"]),
            }
            critic = context.game.critic_of({**players, "critic": active}, seen, draw)
            slopes = input_gradient(critic, context.game.reals(players, constants, draw))
            probe = torch.zeros_like(slopes, requires_grad=True)
            if not slopes.requires_grad:
                return slopes, inputs, probe, []
            # J^T y is linear in y: its derivative along y, pulled back along u, is J u.
            product = torch.autograd.grad(
                slopes, inputs, probe, create_graph=True, materialize_grads=True
            )
        return slopes, inputs, probe, list(product)

    def __call__(self, q: Tensor) -> Tensor:
        self.tick(PRODUCT * len(self.draws))
        direction = tree.leaves(tree.unflatten(self.part.flat(q), self.like))
        total = torch.zeros(len(self.part.mask), dtype=torch.float64, device=self.part.mask.device)
        for slopes, inputs, probe, product in self._graphs:
            pairs = [(p, d) for p, d in zip(product, direction, strict=False) if p.requires_grad]
            if not pairs:
                continue
            (forward,) = torch.autograd.grad(
                [p for p, _ in pairs],
                probe,
                [d for _, d in pairs],
                retain_graph=True,
                materialize_grads=True,
            )
            back = torch.autograd.grad(
                slopes, inputs, forward, retain_graph=True, materialize_grads=True
            )
            total += torch.cat([b.reshape(-1) for b in back]) / len(slopes)
        return (total / len(self.draws))[self.part.mask]


# -- extreme eigenvalues -----------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Extremes:
    """The ends of a symmetric operator's spectrum.

    Attributes:
        smallest, vector: the smallest eigenvalue found and its unit vector [n].
        residual: |H u - smallest u|; some eigenvalue is no further away.
        largest: the largest found.
        complete: all eigenvalues were found (dense); `values` are they.
        steps: products taken.
    """

    smallest: float
    vector: Tensor
    residual: float
    largest: float
    complete: bool
    steps: int
    values: Tensor | None = None

    @property
    def zero(self) -> float:
        """What is zero to rounding."""
        return ZERO * max(abs(self.smallest), abs(self.largest), 1e-300)

    @property
    def flat(self) -> int:
        """How many eigenvalues are zero; 0 where not all were found."""
        return 0 if self.values is None else int((self.values.abs() <= self.zero).sum())

    @property
    def finite(self) -> bool:
        return math.isfinite(self.smallest) and math.isfinite(self.residual)

    def converged(self, nothing: float) -> bool:
        """Whether the smallest eigenvalue is known: certainly above -nothing, or known to 5%."""
        if self.complete:
            return True
        sure = self.smallest - self.residual >= -nothing
        return sure or self.residual <= 0.05 * abs(self.smallest)


def dense_symmetric(apply: Apply, n: int, device: torch.device | None = None) -> Tensor:
    """The symmetric matrix [n, n] of an operator, a product for each column; its symmetric part."""
    unit = torch.eye(n, dtype=torch.float64, device=device)
    if not n:
        return unit
    matrix = torch.stack([apply(row) for row in unit], dim=1)
    return (matrix + matrix.mT) / 2


def dense_extremes(matrix: Tensor, steps: int) -> Extremes:
    """All eigenvalues of a symmetric matrix."""
    if not tree.all_finite(matrix):
        nothing = matrix.new_zeros(len(matrix))
        return Extremes(float("nan"), nothing, float("nan"), float("nan"), True, steps)
    values, vectors = torch.linalg.eigh(matrix)
    u = vectors[:, 0]
    residual = float((matrix @ u - values[0] * u).norm())
    return Extremes(float(values[0]), u, residual, float(values[-1]), True, steps, values)


def lanczos_extremes(apply: Apply, start: Tensor, steps: int) -> Extremes:
    """Both ends of a symmetric operator's spectrum from `steps` products, by Lanczos' method from the vector `start`
    [n].

    Ritz values lie inside of the spectrum: the smallest found is an upper bound of the smallest there is.
    """

    def product(u: NDArray[np.float64]) -> NDArray[np.float64]:
        image: NDArray[np.float64] = apply(torch.from_numpy(u).to(start)).cpu().numpy()
        return image

    basis, T, beta = density.lanczos(product, start.cpu().numpy(), steps)
    if not np.isfinite(T).all():
        return Extremes(math.nan, torch.zeros_like(start), math.nan, math.nan, False, len(T))
    values, vectors = np.linalg.eigh(T)
    u = torch.from_numpy(vectors[:, 0] @ basis).to(start)
    residual = beta * abs(float(vectors[-1, 0]))
    return Extremes(float(values[0]), u, residual, float(values[-1]), False, len(T))


def orthogonal(x: Tensor, basis: Sequence[Tensor]) -> Tensor:
    """x orthogonalised against an orthonormal basis; twice, because of rounding."""
    x = x.clone()
    for _ in range(2):
        for q in basis:
            x.sub_(q, alpha=float(q.to(x.dtype) @ x))
    return x


def random_direction(context: AuditContext, n: int, where: Address) -> Tensor:
    """A fixed random vector [n] of this audit."""
    return normal(where.generator(context.seed), (n,), torch.float64, context.device)


def extremes_of(context: AuditContext, operator: Hessian, steps: int, where: Address) -> Extremes:
    """The ends of a Hessian's spectrum: dense where that takes no more than `steps` products, or where
    losses are exact and the player has up to 2,500 free parameters."""
    n = operator.n
    if n <= steps or (not context.sampled and n <= DENSE):
        return dense_extremes(dense_symmetric(operator, n, context.device), n)
    return lanczos_extremes(operator, random_direction(context, n, where), steps)


def curvatures(context: AuditContext, player: str, u: Tensor, tick: Tick) -> Tensor:
    """u^T H_p u on every batch of the score split, float64; u [n_p] over all coordinates."""
    values = []
    for draw in score_draws(context):
        operator = Hessian(context, player, [draw], tick, whole=True)
        values.append(u @ operator(u))
    return torch.stack(values)
