"""What a solver is, and what most of them share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, cast

import torch
from torch import Tensor

from equilibrist import tree
from equilibrist.core.draws import Draw
from equilibrist.core.field import Evaluation, Linearization, VectorField
from equilibrist.core.game import Constants, Players
from equilibrist.optimizers import SGD, Optimizer
from equilibrist.tree import Nested, Tree

State = Tree
Sizes = Mapping[str, int]


class DrawSource(Protocol):
    """What a step may draw (`equilibrist.Draws`, or a stack of them)."""

    def batch(self, index: int = 0) -> Draw: ...

    def noise(self, like: Nested, index: int = 0) -> Tree: ...


class Step(NamedTuple):
    """The result of one step. `info` holds measurements, `{"loss": {player: ...}, "grad_norm":
    {player: ...}}`, each a tensor, never a number: reading one would wait for the device."""

    players: Players
    constants: Constants
    state: State
    info: dict[str, dict[str, Tensor]]


class Solver(Protocol):
    """A method: frozen hyperparameters, state in and out.

    `step` may overwrite the players and the state that it is given; clone them to keep them.
    """

    def init(self, players: Players) -> State: ...

    def step(
        self,
        field: VectorField,
        players: Players,
        constants: Constants,
        state: State,
        draws: DrawSource,
    ) -> Step: ...


class Linear(Protocol):
    """A solver whose step is known exactly on games with a linear field v(x) = J x + c.

    `linear_map(J, sizes)` is the matrix M [n + m, n + m] of one step: (x, s) at the next step is
    M (x, s) plus a constant, x the players [n] and s the floating state [m], both flattened in their
    own order. `sizes` gives each player's number of parameters, in order; rules must be SGD.
    """

    def linear_map(self, jacobian: Tensor, sizes: Sizes) -> Tensor: ...


class ByPlayer:
    """Update rules in two fields, `optimizer` and `optimizers` by player's name: what `Rules` has without its order
    and defaults of fields."""

    optimizer: Optimizer
    optimizers: dict[str, Optimizer]

    def __post_init__(self) -> None:
        check_rules(self.optimizer, *self.optimizers.values())

    def rule(self, player: str) -> Optimizer:
        """The update rule of this player."""
        return self.optimizers.get(player, self.optimizer)

    def init(self, players: Players) -> State:
        """State of every player's rule."""
        check_names(self.optimizers, players)
        return {player: self.rule(player).init(part) for player, part in players.items()}

    def move(
        self, field: VectorField, direction: Players, state: State, players: Players
    ) -> Players:
        """Every player's rule along `direction`, in place, then the projection."""
        with torch.no_grad():
            self.descend(field, direction, state, players)
            return field.project(players)

    def descend(
        self, field: VectorField, direction: Players, state: State, players: Players
    ) -> None:
        """Every player's rule along `direction`, in place, nothing projected."""
        for player, part in players.items():
            field.descend(self.rule(player), player, direction[player], state[player], part)

    def step_sizes(self, like: Tensor, sizes: Sizes) -> Tensor:
        """The step size of every parameter [n], for `linear_map`. ValueError for rules that are not
        linear, or that have a memory."""
        rates = []
        for player, size in sizes.items():
            rule = self.rule(player)
            if not isinstance(rule, SGD) or rule.momentum:
                raise ValueError(f"linear_map is that of plain SGD, not of {rule}")
            rates.append(torch.full((size,), rule.lr, dtype=like.dtype, device=like.device))
        return torch.cat(rates)


@dataclass(frozen=True)
class Rules(ByPlayer):
    """Update rules by player: what solvers that move every player by its rule inherit.

    Args:
        optimizer: the update rule of every player that `optimizers` does not name.
        optimizers: rules by player's name (different step sizes: two time scales).
    """

    optimizer: Optimizer = field(default_factory=SGD)
    optimizers: dict[str, Optimizer] = field(default_factory=dict)

    def __str__(self) -> str:
        named = "".join(f", {player}: {rule}" for player, rule in self.optimizers.items())
        return f"{type(self).__name__}: {self._options()}{self.optimizer}{named}"

    def _options(self) -> str:
        return ""


class Place(NamedTuple):
    """Where a direction is taken: `field(*place)` is v, `field.linearize(*place)` gives products with J^T too."""

    players: Players
    constants: Constants
    draw: Draw


@dataclass(frozen=True)
class Directed(Rules, ABC):
    """x <- P(x - rule(d)) for all players at once: what solvers that are a direction d inherit.

    Losses and gradient norms are those of v at the iterate before the step, after the refresh of the power vectors.
    """

    @abstractmethod
    def direction(
        self, field: VectorField, place: Place, draws: DrawSource
    ) -> tuple[Players, Evaluation | Linearization]:
        """d, and what was evaluated at `place`, on the step's minibatch 0. `draws` has further ones."""

    def step(
        self,
        field: VectorField,
        players: Players,
        constants: Constants,
        state: State,
        draws: DrawSource,
    ) -> Step:
        """The power vectors refreshed, then every player's rule along the direction."""
        draw = draws.batch(0)
        constants = field.refresh(players, constants, draw)
        direction, here = self.direction(field, Place(players, constants, draw), draws)
        info = measured(field, here.v, here.losses)
        return Step(self.move(field, direction, state, players), constants, state, info)


def identity_like(jacobian: Tensor) -> Tensor:
    """The identity matrix of a Jacobian's size."""
    return torch.eye(len(jacobian), dtype=jacobian.dtype, device=jacobian.device)


def check_rules(*rules: object) -> None:
    """ValueError for anything but an update rule: a class instead of an instance, or a torch optimiser."""
    for rule in rules:
        if isinstance(rule, type) or not (hasattr(rule, "init") and hasattr(rule, "update")):
            name = rule.__name__ if isinstance(rule, type) else type(rule).__name__
            raise ValueError(
                f"{name} is no update rule: write equilibrist.Adam(1e-3), SGD(...), RMSProp(...)"
            )


def check_names(named: Mapping[str, object], players: Players) -> None:
    """ValueError where a rule is given for a player that does not exist."""
    if unknown := [name for name in named if name not in players]:
        raise ValueError(
            f"optimizers names {unknown[0]!r}, but the players are {', '.join(players)}"
        )


def check_roles(leader: str, follower: str, players: Players) -> None:
    """ValueError unless leader and follower are two of the players."""
    for role, name in (("leader", leader), ("follower", follower)):
        if name not in players:
            raise ValueError(f"{role} names {name!r}, but the players are {', '.join(players)}")
    if leader == follower:
        raise ValueError(f"leader and follower are both {leader!r}: name two players")


def independent(draws: DrawSource, index: int) -> Draw:
    """Minibatch `index`, which must be none of the earlier ones again. GameError where the source knows that it
    would be (a loop that gave one batch: `equilibrist.interop.Play`)."""
    return cast(Draw, getattr(draws, "independent", draws.batch)(index))


def flat_part(part: Tree, members: int | None) -> Tensor:
    """One player's tensors as [n], or [members, n]."""
    if not members:
        return tree.flatten(part)
    return torch.cat([leaf.reshape(members, -1) for leaf in tree.leaves(part)], 1)


def in_parts(u: Tensor, like: Tree, members: int | None) -> Tree:
    """What `flat_part` made flat, in parts again."""
    leaves = tree.leaves(like)
    sizes = [leaf.numel() // (members or 1) for leaf in leaves]
    cut: list[Tensor] = list(torch.split(u, sizes, -1))
    return tree.fill(like, [c.reshape(leaf.shape) for c, leaf in zip(cut, leaves, strict=True)])


def measured(
    field: VectorField, v: Players, losses: dict[str, Tensor]
) -> dict[str, dict[str, Tensor]]:
    """A step's info: losses and gradient norms of one evaluation."""
    return {"loss": losses, "grad_norm": field.norms(v)}
