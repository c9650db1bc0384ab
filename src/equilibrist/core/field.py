"""The field of own-loss gradients: the one place that differentiates with respect to parameters,
and the one place that averages over machines.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from equilibrist import tree
from equilibrist.core._graph import Forward, Graph
from equilibrist.core.draws import Draw
from equilibrist.core.exact import followed_leaves
from equilibrist.core.game import Constants, Game, Players, coupled_parameters, feasible_everywhere
from equilibrist.core.parts import Collective, cut, mean_of, require_separable
from equilibrist.errors import GameError
from equilibrist.nn.functional import grad
from equilibrist.nn.slopes import Slopes
from equilibrist.nn.spectral_norm import is_power_vector
from equilibrist.nn.stacked import raise_trim_threshold, vmap_members
from equilibrist.optimizers import Optimizer, Params
from equilibrist.schedules import update
from equilibrist.tree import Nested, Tree

Reduce = Callable[[list[Tensor]], list[Tensor]]


class Pullback(Protocol):
    """J^T u, or one player's part of it."""

    def __call__(self, u: Players, only: str | None = None) -> Players: ...


class Evaluation(NamedTuple):
    """Gradients `v` of the players that move, and the losses that were evaluated (no graph)."""

    v: Players
    losses: dict[str, Tensor]


class Linearization(NamedTuple):
    """`v` and the losses as in `Evaluation`; `pullback(u)` is J^T u with J = dv/dx, from one graph.

    Players that `u` does not name count as zero; `pullback(u, only=player)` is that player's part of J^T u
    alone. Both leave out what they need not compute: an off-diagonal block costs half a product.
    """

    v: Players
    losses: dict[str, Tensor]
    pullback: Pullback


class VectorField:
    """v(x) = (gradient of each player's own loss with respect to its own parameters).

    Args:
        game: the game.
        reduce: averages a list of tensors over machines (`equilibrist.distributed.mean_over_ranks`).
            It is applied to finished linear quantities (v, J^T u, J u, losses) and to nothing else.
        stacked: number of members when players, constants and draws carry a leading dimension of
            that size (an ensemble of seeds). Losses then have shape [stacked].
        parts: cut every draw into that many parts, and average: the same gradient in less memory (accumulation).
        ranks: the processes that divide the parts among them; each is given the whole draw, and gets the mean over all
            parts: the bits of one process, where parts are added in their order.
        autocast: the losses' matrix products in this dtype (torch.bfloat16); parameters, gradients
            and penalties keep theirs.
        per_part: where losses depend on whole batches (batch norm), take the mean over parts all the same.
        frozen: hold the power vectors of spectral norms fixed in second derivatives. By default they follow their
            weights, and J is the derivative of the field: exact where the power iteration has converged.

    Raises:
        GameError: a game that is not separable can neither be averaged over machines nor in parts; parts below 1.

    Examples:
        >>> import torch
        >>> from equilibrist import VectorField
        >>> from equilibrist.games import bilinear
        >>> game = bilinear()
        >>> one = torch.ones(1, dtype=torch.float64)
        >>> v, _ = VectorField(game)({"x": {"value": 3 * one}, "y": {"value": 2 * one}}, {}, {})
        >>> v["x"]["value"].tolist(), v["y"]["value"].tolist()  # y descends -x y
        ([2.0], [-3.0])
    """

    def __init__(
        self,
        game: Game,
        *,
        reduce: Reduce | None = None,
        stacked: int | None = None,
        parts: int = 1,
        autocast: torch.dtype | None = None,
        frozen: bool = False,
        ranks: Collective | None = None,
        per_part: bool = False,
    ) -> None:
        if isinstance(parts, bool) or not isinstance(parts, int) or parts < 1:
            raise GameError(f"parts={parts!r}: it must be a whole number of at least 1")
        many = reduce is not None or ranks is not None
        if many or parts > 1:
            require_separable(game, many, per_part and parts > 1 and reduce is None)
        self.game, self.reduce, self.stacked = game, reduce, stacked
        self.parts, self.autocast, self.frozen = parts, autocast, frozen
        self.ranks, self.per_part = ranks, per_part
        self._everywhere = feasible_everywhere(game)
        self.coupled = coupled_parameters(game)
        self._apart = bool(getattr(game, "one_by_one", False))
        if stacked:
            raise_trim_threshold()
        self._losses = self._stack if stacked else game.losses

    def __call__(
        self, players: Players, constants: Constants, draw: Draw, only: str | None = None
    ) -> Evaluation:
        """Gradients at `players` on one draw; with `only`, of that player alone."""
        if self.parts > 1:
            return self._accumulated(players, constants, draw, only)
        _, losses, v, _ = self._differentiate(players, constants, draw, only, create_graph=False)
        return Evaluation(*self._averaged(v, losses))

    def linearize(self, players: Players, constants: Constants, draw: Draw) -> Linearization:
        """v and J^T from one graph, which lives as long as `pullback` does (with `parts`: from one graph
        a part, all of them kept)."""
        if self.parts > 1:
            whole = self._whole()
            pieces = [whole.linearize(players, constants, part) for part in self._cut(draw)]
            v = self._over_parts([p.v for p in pieces])
            losses = self._over_parts([p.losses for p in pieces])

            def averaged(u: Players, only: str | None = None) -> Players:
                return self._over_parts([p.pullback(u, only) for p in pieces])

            return Linearization(v, losses, averaged)
        players = {player: players[player] for player in self.game.players}
        graph = self._differentiate(players, constants, draw, None, create_graph=True)
        v = graph.v
        mean_v, mean_losses = self._averaged(tree.detach(v), graph.losses)

        def pullback(u: Players, only: str | None = None) -> Players:
            reached = players if only is None else {only: players[only]}
            pairs = [
                (leaf, u[player][name])
                for player in players
                if player in u
                for name, leaf in v[player].items()
                if leaf.requires_grad
            ]
            if not pairs:
                return tree.zeros_like(reached)
            outputs, directions = [leaf for leaf, _ in pairs], [u for _, u in pairs]
            product = graph.back(outputs, directions, reached, retain_graph=True)
            return tree.fill(reached, self._mean(product))

        return Linearization(mean_v, mean_losses, pullback)

    def vjp(self, players: Players, constants: Constants, u: Players, draw: Draw) -> Players:
        """J^T u on one draw."""
        return self.linearize(players, constants, draw).pullback(u)

    def jvp(self, players: Players, constants: Constants, u: Players, draw: Draw) -> Players:
        """J u on one draw: the derivative of w -> J^T w (linear in w), pulled back along u.

        Two reverse passes rather than a forward one: some layers have no forward mode.
        """
        if self.parts > 1:
            whole = self._whole()
            pieces = [whole.jvp(players, constants, u, part) for part in self._cut(draw)]
            return self._over_parts(pieces)
        players = {player: players[player] for player in self.game.players}
        return Forward(self, players, constants, draw)(u, retain_graph=False)

    def refresh(
        self, players: Players, constants: Constants, draw: Draw, exact: bool = False
    ) -> Constants:
        """The game's `refresh`, member by member where stacked."""
        if not any(constants.values()):
            return constants
        if self.stacked and self._apart:
            members = self._members(players, constants, draw)
            return tree.stack([self.game.refresh(p, c, d, exact) for p, c, d in members])
        if self.stacked:
            refreshed = torch.func.vmap(self.game.refresh, in_dims=(0, 0, 0, None))
            return refreshed(players, constants, draw, exact)
        return self.game.refresh(players, constants, draw, exact)

    def project(self, players: Players) -> Players:
        """The game's `project`, member by member where stacked."""
        if self._everywhere:
            return players
        return (
            torch.func.vmap(self.game.project)(players)
            if self.stacked
            else self.game.project(players)
        )

    def descend(
        self, rule: Optimizer, player: str, slope: Params, state: Tree, part: Params
    ) -> None:
        """One update of a player's `rule` along `slope`, overwriting `part` and `state`; `project` comes
        after it. Which steps suit the player's feasible set: see `schedules.update`."""
        update(rule, slope, state, part, self.stacked, self.coupled[player])

    def evaluate(
        self,
        fn: Callable[[Players, Constants, Draw], Any],
        players: Players,
        constants: Constants,
        draw: Draw,
    ) -> Any:
        """`fn(players, constants, draw)`, member by member where stacked; not averaged."""
        if self.stacked and self._apart:
            each = [fn(*member) for member in self._members(players, constants, draw)]
            return torch.stack(each) if isinstance(each[0], Tensor) else tree.stack(each)
        whole = torch.func.vmap(fn) if self.stacked else fn
        return whole(players, constants, draw)

    def of(self, game: Game) -> VectorField:
        """The field of another game over the same machines and members (an inner problem, say)."""
        return self._of(game, self.parts)

    def follows(self, constants: Constants) -> bool:
        """Whether second derivatives here let power vectors follow their weights, the game leaving it to them."""
        if self.frozen or getattr(self.game, "follows", False):
            return False
        return any(is_power_vector(k) for held in constants.values() for k in held)

    def norms(self, v: Players) -> dict[str, Tensor]:
        """Euclidean norm of each player's part of `v`: 0-d, or [stacked]."""
        if not self.stacked:
            return {p: tree.norm(part) for p, part in v.items()}
        return {
            player: torch.stack(
                [
                    torch.linalg.vector_norm(leaf.reshape(self.stacked, -1), dim=1)
                    for leaf in tree.leaves(part)
                ]
            ).norm(dim=0)
            for player, part in v.items()
        }

    def _stack(
        self, players: Players, constants: Constants, draw: Draw, only: str | None = None
    ) -> dict[str, Tensor]:
        """The game's losses of every member, [stacked]."""
        if self._apart:
            members = self._members(players, constants, draw)
            each = [self.game.losses(p, c, d, only) for p, c, d in members]
            return {player: torch.stack([losses[player] for losses in each]) for player in each[0]}
        losses = vmap_members(lambda p, c, d: self.game.losses(p, c, d, only), self.stacked or 1)
        return losses(players, constants, draw)

    def _members(self, *trees: Nested) -> list[tuple[Tree, ...]]:
        """Of trees of stacked tensors, those of each member."""
        return [tuple(tree.member(t, i) for t in trees) for i in range(self.stacked or 1)]

    def _of(self, game: Game, parts: int) -> VectorField:
        return VectorField(
            game,
            reduce=self.reduce,
            stacked=self.stacked,
            parts=parts,
            autocast=self.autocast,
            frozen=self.frozen,
            ranks=self.ranks if parts > 1 else None,
            per_part=self.per_part,
        )

    def _whole(self) -> VectorField:
        """The same field without parts."""
        return self._of(self.game, 1)

    def _cut(self, draw: Draw) -> list[Draw]:
        """The parts of a draw that this process evaluates."""
        pieces = cut(draw, self.parts, 1 if self.stacked else 0)
        return pieces if self.ranks is None else [pieces[i] for i in self.ranks.own(self.parts)]

    def _over_parts(self, trees: list[Tree]) -> Tree:
        """The mean over all parts, of what this process found on its own."""
        if self.ranks is None:
            return mean_of(trees)
        return tree.fill(trees[0], self.ranks.mean([tree.leaves(t) for t in trees], self.parts))

    def _accumulated(
        self, players: Players, constants: Constants, draw: Draw, only: str | None
    ) -> Evaluation:
        """The mean over parts, one part's graph alive at a time; averaged over machines once."""
        total: list[Tensor] = []
        rows: list[list[Tensor]] = []
        for part in self._cut(draw):
            _, losses, v, _ = self._differentiate(
                players, constants, part, only, create_graph=False
            )
            found = [*tree.leaves(v), *losses.values()]
            if self.ranks is not None:
                rows.append(found)
            elif total:
                torch._foreach_add_(total, found)
            else:
                total = [leaf.clone() for leaf in found]
        if self.ranks is not None:
            total = self.ranks.mean(rows, self.parts)
        else:
            torch._foreach_div_(total, self.parts)
        count = len(total) - len(losses)
        return Evaluation(
            *self._averaged(
                tree.fill(v, total[:count]), dict(zip(losses, total[count:], strict=True))
            )
        )

    def _differentiate(
        self,
        players: Players,
        constants: Constants,
        draw: Draw,
        only: str | None,
        create_graph: bool,
    ) -> Graph:
        game = self.game
        if only is not None and only not in game.players:
            raise GameError(f"there is no player {only!r}: choose from {', '.join(game.players)}")
        moving = (only,) if only else game.players
        active = {
            # Fresh leaves that share memory: flags of the caller's tensors stay as they are.
            player: {k: t.detach().requires_grad_() for k, t in part.items()}
            if player in moving
            else part
            for player, part in players.items()
        }
        shadows: Players = {}
        with torch.enable_grad():
            if create_graph and self.follows(constants):
                shadows, constants = followed_leaves(players, constants)
            # Gradients that will be differentiated once more: see Slopes.
            with Slopes(getattr(game, "thrice", False)) if create_graph else nullcontext():
                losses = self._evaluated(active, constants, draw, only)
            if game.zero_sum and only is None:
                first, second = game.players
                inputs = [*active[first].values(), *active[second].values()]
                grads = self._grad(losses[first], inputs, create_graph)
                split = len(active[first])
                # Not in place: autograd may hand out one tensor for several parameters.
                opposite = (
                    [-g for g in grads[split:]]
                    if create_graph
                    else list(torch._foreach_neg(grads[split:]))
                )
                parts = {first: grads[:split], second: opposite}
            else:
                parts = {
                    player: self._grad(
                        losses[player],
                        list(active[player].values()),
                        create_graph,
                        retain=player != moving[-1],
                    )
                    for player in moving
                }
        v = {p: dict(zip(players[p], parts[p], strict=True)) for p in moving}
        return Graph(active, {p: losses[p].detach() for p in losses}, v, shadows)

    def _evaluated(
        self, active: Players, constants: Constants, draw: Draw, only: str | None
    ) -> dict[str, Tensor]:
        if self.autocast is None:
            return self._losses(active, constants, draw, only)
        kind = next(iter(tree.leaves(active))).device.type
        # No cache of cast weights: it would outlive the graph of one evaluation.
        with torch.autocast(kind, dtype=self.autocast, cache_enabled=False):
            return self._losses(active, constants, draw, only)

    def _grad(
        self, loss: Tensor, inputs: list[Tensor], create_graph: bool, retain: bool = False
    ) -> list[Tensor]:
        if not loss.requires_grad:
            return [torch.zeros_like(t) for t in inputs]
        total = loss.sum() if self.stacked else loss
        return list(
            grad(
                total,
                inputs,
                create_graph=create_graph,
                retain_graph=create_graph or retain,
                materialize_grads=True,
            )
        )

    def _averaged(self, v: Players, losses: dict[str, Tensor]) -> tuple[Players, dict[str, Tensor]]:
        if self.reduce is None:
            return v, losses
        averaged = self.reduce([*tree.leaves(v), *losses.values()])
        count = len(tree.leaves(v))
        return tree.fill(v, averaged[:count]), dict(zip(losses, averaged[count:], strict=True))

    def _mean(self, tensors: list[Tensor]) -> list[Tensor]:
        return tensors if self.reduce is None else self.reduce(tensors)
