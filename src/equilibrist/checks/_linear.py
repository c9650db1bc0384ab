"""Products with the blocks of a pair's Jacobian where its players may move, and extreme eigenvalues by them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from equilibrist import tree
from equilibrist.checks._spent import Tick
from equilibrist.checks.context import AuditContext, norm_of
from equilibrist.core.draws import Address, Draw, normal
from equilibrist.core.exact import Exact, followed
from equilibrist.core.field import Linearization, VectorField
from equilibrist.core.game import Constants, Game, Players
from equilibrist.formulations.gradient import input_gradient

DENSE = 2500
PRODUCT = 2.5  # minibatch gradients that one J^T u on one minibatch costs
ZERO = 1e-9  # eigenvalues below this, relative to the largest, are zero to rounding

Apply = Callable[[Tensor], Tensor]


def order_of(game: Any) -> tuple[str, str]:
    """(leader, follower): the player that minimises V and the one that maximises it."""
    usual = "generator" if "generator" in game.players else game.players[0]
    leader = getattr(game, "leader", usual)
    (follower,) = (player for player in game.players if player != leader)
    return leader, follower


# -- where the players may move ----------------------------------------------------------------------


@dataclass(frozen=True)
class Free:
    """Which coordinates may move, to second order.

    Attributes:
        masks: bool [n_p] of each player, True where a coordinate is free.
        held: tensors that the boundary of a set other than a box holds: whole.
        walls: how many single coordinates a box holds.
        gradient: mean gradient [n_p] of the player's own loss on the draws of the Jacobian products.
        residual: move * |x| * |r|, r the projected gradient's residual (see `stationarity`): what is left
            to gain to first order. On few draws it holds their noise.
    """

    masks: dict[str, Tensor]
    held: dict[str, tuple[str, ...]]
    walls: dict[str, int]
    gradient: dict[str, Tensor]
    residual: dict[str, float]

    def limits(self, *players: str) -> tuple[str, ...]:
        """What must be said about coordinates that were held."""
        said = []
        for player in players:
            if self.held[player]:
                names = ", ".join(self.held[player])
                said.append(
                    f"the boundary of the {player}'s feasible set holds {names}: left out as a whole, though "
                    "some of its directions may run along the boundary"
                )
            if self.walls[player]:
                said.append(
                    f"a box holds {self.walls[player]} of the {player}'s parameters: they were left out"
                )
        return tuple(said)


AT_A_WALL = 4 * float(torch.finfo(torch.float32).eps)  # relative distance that is none
_FREE: WeakKeyDictionary[AuditContext, Free] = WeakKeyDictionary()


def free(context: AuditContext) -> Free:
    """Where the players of this context may move; computed once.

    A step of length move * |x| down the player's mean gradient is projected. A coordinate of a box is held
    where the step leaves it in place, to rounding; a tensor in another set is held whole where the projection takes
    back more than half of its step.
    """
    if context not in _FREE:
        _FREE[context] = _free(context)
    return _FREE[context]


def _free(context: AuditContext) -> Free:
    players, constants = context.wide
    field, draws = context.smooth(), context.linear_draws()  # all of them: a gradient is cheap
    fields = [field(players, constants, draw).v for draw in draws]
    found = Free({}, {}, {}, {}, {})
    for player in context.game.players:
        v = torch.stack([tree.flatten(f[player]) for f in fields]).mean(0)
        x = tree.flatten(players[player])
        found.gradient[player] = v
        found.masks[player], names, walls = torch.ones_like(x, dtype=torch.bool), [], 0
        norm, reach = float(v.norm()), context.settings.move * norm_of(context, player)
        residual = norm
        # A gradient of rounding errors has a direction too: it means nothing.
        if norm > 0 and not norm * reach <= 1e-9 * context.tolerance().value:
            step = reach / norm * v
            landed = projected(context, player, x - step)
            residual = float((x - landed).norm()) * norm / reach
            if _boxed(context, player):
                # A wall at 0.01 is another number in float32, in which most weights are trained.
                slack = AT_A_WALL * x.abs()
                blocked = ((landed - x).abs() <= slack) & (step.abs() > slack)
                found.masks[player], walls = ~blocked, int(blocked.sum())
            else:
                start = 0
                for name, value in players[player].items():
                    where = slice(start, start + value.numel())
                    start += value.numel()
                    meant = float(step[where].norm())
                    moved = float((landed - x)[where].norm())
                    if meant > 1e-9 * reach and moved < 0.5 * meant:
                        found.masks[player][where] = False
                        if value.numel() == 1:  # an interval: a wall like that of a box
                            walls += 1
                        else:
                            names.append(name)
        found.held[player], found.walls[player] = tuple(names), walls
        found.residual[player] = reach * residual
    return found


def _boxed(context: AuditContext, player: str) -> bool:
    known = getattr(context.game, "projections", None)
    own = [p for p in known or () if p.player == player]
    return bool(own) and all(getattr(p, "coordinatewise", False) for p in own)


def projected(context: AuditContext, player: str, flat: Tensor) -> Tensor:
    """The nearest feasible parameters of the player, flat float64 [n_p]."""
    players, _ = context.wide
    moved = tree.unflatten(flat, players[player])
    return tree.flatten(context.game.project({**players, player: moved})[player])


def feasible(context: AuditContext, player: str, u: Tensor, gain: float) -> Tensor | None:
    """A unit direction [n_p] near u or -u that stays in the feasible set for a move of move * |x| and does
    not climb the player's own loss to first order (by more than a tenth of `gain`); None if there is
    none. At most half of the move may be lost to the projection."""
    players, _ = context.wide
    x, reach = (
        tree.flatten(players[player]),
        context.settings.move * norm_of(context, player),
    )
    slope = free(context).gradient[player]
    best = None
    for sign in (1.0, -1.0):
        d = projected(context, player, x + sign * reach * u) - x
        climbs = float(slope @ d)
        if float(d.norm()) < 0.5 * reach or climbs > 0.1 * gain:
            continue
        if best is None or climbs < best[0]:
            best = (climbs, d / d.norm())
    return None if best is None else best[1]


# -- products ------------------------------------------------------------------------------------------


class SinglePlayerGame:
    """A game in which only one player is left; the others rest where they are."""

    zero_sum = False

    def __init__(self, game: Game, player: str, rest: Players) -> None:
        self.game, self.player, self.rest = game, player, rest
        self.players, self.separable = (player,), game.separable
        self.refresh, self.project = game.refresh, game.project

    def losses(
        self, players: Players, constants: Constants, draw: Draw, only: str | None = None
    ) -> dict[str, Tensor]:
        full = {**self.rest, **players}
        return {self.player: self.game.losses(full, constants, draw, self.player)[self.player]}


class _Value:
    """V = -(the follower's own loss) of an exact game that is not zero-sum (see `ValueGame`)."""

    zero_sum = True

    def __init__(self, game: Any) -> None:
        self.game, self.separable = game, game.separable
        self.players: tuple[str, ...] = order_of(game)
        self.refresh, self.project = game.refresh, game.project

    def losses(
        self, players: Players, constants: Constants, draw: Draw, only: str | None = None
    ) -> dict[str, Tensor]:
        leader, follower = self.players
        paid = self.game.losses(players, constants, draw)[follower]
        return {leader: -paid, follower: paid}


def value_field(context: AuditContext) -> VectorField:
    """The field of the zero-sum V, with exact second derivatives."""
    if context.sampled or context.game.zero_sum:
        return context.smooth(value=True)
    return VectorField(Exact(_Value(context.game)))


class _Graphs:
    """One retained graph a draw; `mean(pullback)` over them."""

    def __init__(
        self, field: VectorField, players: Players, constants: Constants, draws: Sequence[Draw]
    ) -> None:
        self._graphs: list[Linearization] = [
            field.linearize(players, constants, draw) for draw in draws
        ]

    def pull(self, u: Players) -> Players:
        pulled = [graph.pullback(u) for graph in self._graphs]
        mean: Players = tree.map(lambda *leaves: torch.stack(leaves).mean(0), *pulled)
        return mean


class Part:
    """Flat vectors over the free coordinates of one player, to and from its parameters."""

    def __init__(self, context: AuditContext, player: str, whole: bool = False) -> None:
        self.player, self.like = player, context.wide[0][player]
        mask = free(context).masks[player]
        self.mask = torch.ones_like(mask) if whole else mask
        self.n = int(self.mask.sum())

    def flat(self, x: Tensor) -> Tensor:
        """All coordinates [n_p] of a vector [n] over the free ones."""
        full = torch.zeros(len(self.mask), dtype=torch.float64, device=self.mask.device)
        full[self.mask] = x.to(full)
        return full

    def tree(self, x: Tensor) -> dict[str, Tensor]:
        """Parameters of a vector [n]."""
        part: dict[str, Tensor] = tree.unflatten(self.flat(x), self.like)
        return part

    def vector(self, part: dict[str, Tensor]) -> Tensor:
        """The free coordinates [n] of parameters."""
        return tree.flatten(part)[self.mask]


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
        players, constants = context.wide
        self.part, self.draws, self.tick = Part(context, player, whole), draws, tick
        self.n = self.part.n
        field = VectorField(SinglePlayerGame(context.smooth().game, player, players))
        self._graphs = _Graphs(field, {player: players[player]}, constants, draws)

    def __call__(self, x: Tensor) -> Tensor:
        player = self.part.player
        self.tick(PRODUCT * len(self.draws))
        return self.part.vector(self._graphs.pull({player: self.part.tree(x)})[player])


class Value:
    """Products with the second derivatives of the zero-sum V = V(t, w), t the leader's and w the
    follower's free coordinates, averaged over draws.

    For J = [[V_tt, V_tw], [-V_wt, -V_ww]] the cheap product J^T gives them all:
    J^T (u, 0) = (V_tt u, V_wt u) and J^T (0, q) = (-V_tw q, -V_ww q).
    """

    def __init__(self, context: AuditContext, draws: Sequence[Draw], tick: Tick) -> None:
        players, constants = context.wide
        self.tick, self.draws = tick, draws
        leader, follower = order_of(context.game)
        self.leader, self.follower = Part(context, leader), Part(context, follower)
        field = value_field(context)
        self._players = players
        self._graphs = _Graphs(field, players, constants, draws)

    def of_leader(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """V_tt u and V_wt u."""
        return self._pull(self.leader, u)

    def of_follower(self, q: Tensor) -> tuple[Tensor, Tensor]:
        """V_tw q and -V_ww q."""
        coupled, own = self._pull(self.follower, q)
        return -coupled, own

    def _pull(self, part: Part, x: Tensor) -> tuple[Tensor, Tensor]:
        self.tick(PRODUCT * len(self.draws))
        resting = tree.zeros_like(self._players)
        pulled = self._graphs.pull({**resting, part.player: part.tree(x)})
        return (
            self.leader.vector(pulled[self.leader.player]),
            self.follower.vector(pulled[self.follower.player]),
        )


class Sobolev:
    """q -> M q, M = E[(d_w grad_x D)^T (d_w grad_x D)] over real samples, averaged over draws: the
    Hessian of 1/2 ||D_w' - D_w||^2 at w' = w, ||D||^2 = E |grad_x D(X)|^2 (Farnia and Ozdaglar 2020,
    equation 15). Singular vectors of normalised weights follow the weights.

    For a GAN with one critic that scores each sample by itself.
    """

    def __init__(self, context: AuditContext, draws: Sequence[Draw], tick: Tick) -> None:
        players, constants = context.wide
        self.part, self.tick, self.draws = Part(context, "critic"), tick, draws
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
        direction = list(self.part.tree(q).values())
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


# -- extreme eigenvalues -------------------------------------------------------------------------------


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
        """Whether the smallest eigenvalue is known: above -nothing for certain of what was seen, or to 5%."""
        if self.complete:
            return True
        sure = self.smallest - self.residual >= -nothing
        return sure or self.residual <= 0.05 * abs(self.smallest)


def dense(apply: Apply, n: int, device: Any = None) -> Tensor:
    """The symmetric matrix [n, n] of an operator, a product for each column; its symmetric part."""
    unit = torch.eye(n, dtype=torch.float64, device=device)
    if not n:
        return unit
    matrix = torch.stack([apply(row) for row in unit], dim=1)
    return (matrix + matrix.mT) / 2


def whole(matrix: Tensor, steps: int) -> Extremes:
    """All eigenvalues of a symmetric matrix."""
    if not bool(torch.isfinite(matrix).all()):
        nothing = matrix.new_zeros(len(matrix))
        return Extremes(float("nan"), nothing, float("nan"), float("nan"), True, steps)
    values, vectors = torch.linalg.eigh(matrix)
    u = vectors[:, 0]
    residual = float((matrix @ u - values[0] * u).norm())
    return Extremes(float(values[0]), u, residual, float(values[-1]), True, steps, values)


def lanczos(apply: Apply, start: Tensor, steps: int) -> Extremes:
    """Both ends of a symmetric operator's spectrum from `steps` products, by Lanczos' method with full
    reorthogonalisation (Golub and Van Loan 2013, section 10.3.1), from the vector `start` [n].

    Ritz values lie inside of the spectrum: the smallest found is an upper bound of the smallest there is.
    """
    n = len(start)
    basis, images = [start / start.norm()], []
    off: list[float] = []
    for _ in range(min(steps, n)):
        image = apply(basis[-1])
        images.append(image)
        rest = orthogonal(image, basis)
        beta = float(rest.norm())
        if not beta > 1e-12 * float(image.norm()) or len(basis) == n:
            break
        off.append(beta)
        basis.append(rest / beta)
    k = len(images)
    Q, H = torch.stack(basis[:k], dim=1), torch.stack(images, dim=1)
    small = Q.mT @ H
    if not bool(torch.isfinite(small).all()):
        nan = float("nan")
        return Extremes(nan, torch.zeros_like(start), nan, nan, False, k)
    values, vectors = torch.linalg.eigh((small + small.mT) / 2)
    u = Q @ vectors[:, 0]
    residual = float((H @ vectors[:, 0] - values[0] * u).norm())
    return Extremes(float(values[0]), u, residual, float(values[-1]), False, k)


def orthogonal(x: Tensor, basis: Sequence[Tensor]) -> Tensor:
    """What is left of x beside an orthonormal basis; twice, for rounding."""
    for _ in range(2):
        for q in basis:
            x = x - (q @ x) * q
    return x


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


def score_draws(context: AuditContext) -> Iterator[Draw]:
    """The batches of the score split on which curvatures are scored."""
    yield from context.bank("score")[: context.settings.local_batches]


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
