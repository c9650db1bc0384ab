"""A game: players, and a pure function from their choices and one draw to each player's own loss."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from equilibrist import tree
from equilibrist.core.draws import Draw
from equilibrist.errors import GameError
from equilibrist.optimizers import Coupled
from equilibrist.validation import name_of

Players = dict[str, dict[str, Tensor]]
Constants = dict[str, dict[str, Tensor]]


@runtime_checkable
class Game(Protocol):
    """What every game provides. Each player minimises its own entry of `losses`.

    Attributes:
        players: names, in the order of play's bookkeeping.
        zero_sum: the losses add up to zero exactly, penalties included. Licenses one backward pass
            for both players; two players only.
        separable: every loss is a mean over the draw's samples. Licenses averaging over machines.
    """

    @property
    def players(self) -> tuple[str, ...]: ...
    @property
    def zero_sum(self) -> bool: ...
    @property
    def separable(self) -> bool: ...

    def losses(
        self, players: Players, constants: Constants, draw: Draw, only: str | None = None
    ) -> dict[str, Tensor]:
        """Each player's loss, a 0-d tensor, pure in its arguments.

        With `only`, the entry of that player alone is needed, up to terms that do not depend on its
        parameters.
        """
        ...

    def refresh(
        self, players: Players, constants: Constants, draw: Draw, exact: bool = False
    ) -> Constants:
        """New constants: running estimates moved on by one update, or solved for if `exact`."""
        ...

    def project(self, players: Players) -> Players:
        """Each player mapped into its feasible set, as new values.

        An attribute `coupled`, by player, names the parameters whose entries its set couples (() for a box,
        see `optimizers.Coupled`); without it all of them count as coupled.
        """
        ...


class Plain:
    """Defaults for games without constants and without feasible sets: inherit and give `losses`."""

    players: tuple[str, ...]
    zero_sum: bool = False
    separable: bool = True
    coupled: Mapping[str, Coupled] = MappingProxyType({})

    def refresh(
        self, players: Players, constants: Constants, draw: Draw, exact: bool = False
    ) -> Constants:
        """Nothing to refresh."""
        return constants

    def project(self, players: Players) -> Players:
        """Everything is feasible."""
        return players

    def draw(
        self,
        rng: np.random.Generator,
        batch: int,
        dtype: torch.dtype | None = None,
        device: torch.device | None = None,
    ) -> Draw:
        """A deterministic game draws nothing."""
        return {}


class Wrapped:
    """A game made of another: inherit, and give what differs. Everything that a `Game` provides is the wrapped
    game's otherwise; of what it provides beyond that (`leader`, `linear`, a truth), nothing.

    Args:
        game: the game that is wrapped.
    """

    def __init__(self, game: Game) -> None:
        self.game = game

    @property
    def players(self) -> tuple[str, ...]:
        """The wrapped game's."""
        return self.game.players

    @property
    def zero_sum(self) -> bool:
        """Whether the wrapped game is."""
        return self.game.zero_sum

    @property
    def separable(self) -> bool:
        """Whether the wrapped game is."""
        return self.game.separable

    @property
    def why_not_separable(self) -> str:
        """What was seen of the wrapped game; "" where it says nothing."""
        return str(getattr(self.game, "why_not_separable", ""))

    @property
    def one_by_one(self) -> bool:
        """Whether the members of a stack are evaluated one after the other, as the wrapped game's are."""
        return bool(getattr(self.game, "one_by_one", False))

    @property
    def coupled(self) -> Mapping[str, Coupled]:
        """What the wrapped game's feasible sets couple. Override it together with `project`."""
        return coupled_parameters(self.game)

    def losses(
        self, players: Players, constants: Constants, draw: Draw, only: str | None = None
    ) -> dict[str, Tensor]:
        """The wrapped game's."""
        return self.game.losses(players, constants, draw, only)

    def refresh(
        self, players: Players, constants: Constants, draw: Draw, exact: bool = False
    ) -> Constants:
        """The wrapped game's."""
        return self.game.refresh(players, constants, draw, exact)

    def project(self, players: Players) -> Players:
        """The wrapped game's."""
        return self.game.project(players)


def check_zero_sum(game: Game, players: Players, constants: Constants, draw: Draw) -> None:
    """Raise `GameError` unless a game that claims to be zero-sum is so on this draw."""
    if not game.zero_sum:
        return
    if len(game.players) != 2:
        raise GameError(
            f"{name_of(game)}.zero_sum is True with {len(game.players)} players; it licenses one "
            "backward pass for exactly two: set zero_sum=False"
        )
    players, constants, draw, precision = _precisely(game, players, constants, draw)
    with torch.no_grad():
        losses = [float(loss) for loss in game.losses(players, constants, draw).values()]
    if any(loss - loss != 0 for loss in losses):
        raise GameError(
            f"the losses of {name_of(game)} are not finite on a batch: look at the data and the weights"
        )
    total, size = sum(losses), max(abs(loss) for loss in losses)
    if not abs(total) <= 10 * precision * size + 1e-12:
        raise GameError(
            f"{name_of(game)} claims zero_sum, but its losses add up to {total:.3g} on a batch: set "
            "zero_sum=False or leave out what only one player pays (penalties, for example)"
        )


def check_separable(
    game: Game, players: Players, constants: Constants, draw: Draw
) -> tuple[bool, str]:
    """Whether each loss on `draw` is the mean of the losses on its two halves, and what was seen.

    This is what makes averaging over machines exact; batch statistics break it. Halves are cut two
    ways, front from back and even from odd, and everything is computed in float64: losses of clipped
    critics are tiny, and so must the tolerance be.
    """
    size = min((len(entry) for entry in draw.values() if entry.ndim), default=0)
    if size < 2:
        return True, "nothing is drawn"
    players, constants, draw, precision = _precisely(game, players, constants, draw)
    half = size // 2
    rows = torch.arange(2 * half)
    with torch.no_grad():
        whole = game.losses(players, constants, _rows(draw, rows))
        for parts in ((rows[:half], rows[half:]), (rows[::2], rows[1::2])):
            halves = [game.losses(players, constants, _rows(draw, part)) for part in parts]
            for player, loss in whole.items():
                values = [float(h[player]) for h in halves]
                difference = abs(float(loss) - sum(values) / 2)
                if not difference <= precision * max(abs(v) for v in values) + 1e-12:
                    return False, (
                        f"the {player}'s loss on a batch differs by {difference:.3g} from the mean over its halves"
                    )
    return True, "each loss on a batch is the mean over its halves"


def _rows(draw: Draw, rows: Tensor) -> Draw:
    return {k: e[rows.to(e.device)] if e.ndim else e for k, e in draw.items()}


def _precisely(
    game: Game, players: Players, constants: Constants, draw: Draw
) -> tuple[Players, Constants, Draw, float]:
    """The same point in float64, with the relative error that rounding may cause; in its own precision
    where the game cannot be computed in float64."""
    wide = [tree.to(t, dtype=torch.float64) for t in (players, constants, draw)]
    try:
        with torch.no_grad():
            game.losses(wide[0], wide[1], wide[2])
    except RuntimeError:
        return players, constants, draw, 1e-4
    return wide[0], wide[1], wide[2], 1e-7


def coupled_parameters(game: Game) -> dict[str, Coupled]:
    """By player, the parameters whose entries the game's feasible set couples; () where the game says none.

    A class that overrides `project` has to override `coupled` too.
    """
    owner: Any = getattr(game.project, "__self__", game)
    lines = [vars(owner), *(vars(c) for c in type(owner).__mro__)]
    declared = next((i for i, line in enumerate(lines) if "coupled" in line), len(lines))
    if declared > next(i for i, line in enumerate(lines) if "project" in line):
        return dict.fromkeys(game.players)
    return {player: owner.coupled.get(player, ()) for player in game.players}


def feasible_everywhere(game: Game) -> bool:
    """Whether the game's own `project` is known to change nothing: a vmap over it costs a small stack 7%."""
    own = getattr(getattr(game, "project", None), "__func__", None)
    if isinstance(game, Wrapped) and own is Wrapped.project:
        return feasible_everywhere(game.game)
    applies = getattr(own, "applies_projections", False)
    return own is Plain.project or (applies and not getattr(game, "projections", True))
