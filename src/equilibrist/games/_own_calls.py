"""How the user's functions are called: with given values in the modules, and under a draw's noise."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import ExitStack

import torch

from equilibrist.core.draws import Draw
from equilibrist.core.game import Constants, Players
from equilibrist.games._own_modules import OwnModules
from equilibrist.games._own_players import Function, Modules, in_given_form
from equilibrist.games._own_scores import (
    Laws,
    accepted_arguments,
    detached,
    leaf,
    precision_of,
    with_own_flag,
)
from equilibrist.games.sampled import seed_of
from equilibrist.nn import noise
from equilibrist.nn.memo import Memo
from equilibrist.nn.precision import InPrecision
from equilibrist.nn.pure import Output
from equilibrist.nn.stop_gradient import Place, StopGradients


class OwnCalls(OwnModules, ABC):
    """Players as a user's own modules, and the functions that are called with them.

    Attributes:
        native: the precision in which the players were given.
    """

    _laws: Laws

    def _expect_nothing(self) -> None:
        """Call the functions plainly until they were seen to need more."""
        self._probed = False
        self._counts: dict[int, int] = {}
        self._memos: list[Memo] = []
        # Where the functions stop gradients, whether they freeze anything, and where gradients may pass.
        self._seen: dict[Place, None] = {}
        self._stopping, self._froze, self._passing = False, False, frozenset[Place]()
        self._known, self._looking = set[Place](), False
        self._sources: tuple[str, ...] = ()
        self._needs_gradients, self._writes = False, False
        self._follows, self.native = False, torch.float32
        self.stops = ()

    @abstractmethod
    def batch_of(self, draw: Draw) -> object:
        """The batch of a draw."""

    @abstractmethod
    def _met(self, players: Players, constants: Constants, draw: Draw) -> bool:
        """Whether gradients were stopped at places that are new, which were then looked at."""

    def _call(
        self,
        function: Function,
        players: Players,
        constants: Constants,
        draw: Draw,
        *first: object,
        mover: str | None = None,
        **extra: object,
    ) -> Output:
        """What one of the user's functions returns with these values in the modules. Where gradients of one player
        alone are taken, those that are stopped for another's sake need not pass."""
        graph = torch.is_grad_enabled()
        if self._needs_gradients:
            players = {p: {k: leaf(t) for k, t in part.items()} for p, part in players.items()}
        elif self._froze:  # a function that freezes modules thaws them too: not these tensors
            players = {
                p: {k: with_own_flag(t) for k, t in part.items()} for p, part in players.items()
            }
        for memo in self._memos:
            memo.clear()
        if self._writes:
            draw = {key: t.detach().clone() for key, t in draw.items()}
        given = (self._modules_of(players), *first, self.batch_of(draw), *self._latents(draw))
        given = given[: self._count(function)]
        stopped = None
        asked = graph or self._needs_gradients
        if self._stopping and (self._froze or (asked and (mover is None or not self._probed))):
            stopped = StopGradients(self._passing)
        held = self._enter(players, constants)
        try:
            # No context where none is needed: entering some is half of what a small game costs.
            if not (stopped or self._sources or self._follows or self._needs_gradients):
                found = function(*given, **extra)
            else:
                with ExitStack() as stack:
                    self._surround(stack, players, draw, stopped)
                    found = function(*given, **extra)
        finally:
            self._leave(held)
            self._settle(graph)
        for memo in self._memos:
            memo.clear()
        if stopped is not None:
            self._seen.update(stopped.seen)
            self._froze |= stopped.froze
            if self._met(players, constants, draw):
                return self._call(function, players, constants, draw, *first, mover=mover, **extra)
        return detached(found) if self._needs_gradients and not graph else found

    def _count(self, function: Function) -> int:
        """How many arguments a function of the user's takes."""
        if id(function) not in self._counts:
            self._counts[id(function)] = accepted_arguments(function)[0]
        return self._counts[id(function)]

    def _surround(
        self, stack: ExitStack, players: Players, draw: Draw, stopped: StopGradients | None
    ) -> None:
        """The contexts in which the functions run."""
        if self._sources:
            seed = noise.derived(seed_of(draw) or 0)
            stack.enter_context(noise.seeded(seed, self._sources))
        if self._follows and (kind := precision_of(players)) != self.native:
            stack.enter_context(InPrecision(kind))
        if stopped is not None:
            stack.enter_context(stopped)
        if self._needs_gradients:
            stack.enter_context(torch.enable_grad())

    def _modules_of(self, players: Players) -> Modules:
        """What the user's functions are handed of the players, and the frozen modules."""
        found = {
            self.names[p]: in_given_form(self._pure[p].module, players[p]) for p in self.players
        }
        return Modules({**found, **{pure.name: pure.module for pure in self._frozen.values()}})

    def _latents(self, draw: Draw) -> tuple[object, ...]:
        """The third argument of the user's functions, where there is one."""
        if not self._laws:
            return ()
        z = {name: draw[name] for name in self._laws}
        return (next(iter(z.values())) if self._laws.single else z,)
