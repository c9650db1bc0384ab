"""Products with the second derivatives of a pair's losses where its players may move."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from equilibrist import tree
from equilibrist.checks._extremes import Extremes, dense, lanczos, whole
from equilibrist.checks._free import free
from equilibrist.checks._spent import Tick
from equilibrist.checks._value import order_of
from equilibrist.checks.context import AuditContext
from equilibrist.core.draws import Address, Draw, normal
from equilibrist.core.exact import followed
from equilibrist.core.game import Constants, Players
from equilibrist.core.jacobian import HessianOperator, JacobianOperator
from equilibrist.formulations.gradient import input_gradient

DENSE = 2500
PRODUCT = 2.5  # minibatch gradients that one J^T u on one minibatch costs


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


class Value:
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
            critic = context.game.critic(
                {**players, "critic": active}, seen, draw.get("condition"), 0
            )
            slopes = input_gradient(critic, draw["real"])
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


def random_direction(context: AuditContext, n: int, where: Address) -> Tensor:
    """A fixed random vector [n] of this audit."""
    return normal(where.generator(context.seed), (n,), torch.float64, context.device)


def extremes_of(context: AuditContext, operator: Hessian, steps: int, where: Address) -> Extremes:
    """The ends of a Hessian's spectrum: dense where that takes no more than `steps` products, or where
    losses are exact and the player has up to 2,500 free parameters."""
    n = operator.n
    if n <= steps or (not context.sampled and n <= DENSE):
        return whole(dense(operator, n, context.device), n)
    return lanczos(operator, random_direction(context, n, where), steps)


def found_draws(context: AuditContext) -> list[Draw]:
    """The minibatches on which directions are found."""
    return context.linear_draws()[: context.settings.local_draws]


def products_of(context: AuditContext) -> int:
    """How many products a second-order check has on each of `found_draws`."""
    settings = context.settings
    return settings.local_products // min(settings.local_draws, settings.linear_batches)


def score_draws(context: AuditContext) -> list[Draw]:
    """The batches of the score split on which curvatures are scored."""
    return context.bank("score")[: context.settings.local_batches]


def curvatures(context: AuditContext, player: str, u: Tensor, tick: Tick) -> Tensor:
    """u^T H_p u on every batch of the score split, float64; u [n_p] over all coordinates."""
    values = []
    for draw in score_draws(context):
        operator = Hessian(context, player, [draw], tick, whole=True)
        values.append(u @ operator(u))
    return torch.stack(values)


def inexact(context: AuditContext) -> str:
    """Why second derivatives of this game's losses are not exact; "" where they are."""
    formulation = getattr(context.game, "formulation", None)
    if formulation is None or getattr(formulation, "second_order", True):
        return ""
    known = getattr(formulation, "exact_second_order", None)
    players, constants = context.wide
    if known is not None and known(context.game.critic(players, constants)):
        return ""
    return (
        f"{formulation} searches for its transport map, and derivatives of its gradients miss the map's own "
        "motion: take a critic with a closed transform"
    )
