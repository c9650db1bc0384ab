"""Our solvers as steps over modules of another loop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypedDict

import torch
from torch import Tensor, nn

from equilibrist import tree
from equilibrist.core.draws import Draw, Given, generator
from equilibrist.core.field import VectorField
from equilibrist.core.game import Constants
from equilibrist.errors import GameError
from equilibrist.games import GAN, AdversarialGame
from equilibrist.games.sampled import Start
from equilibrist.nn.wrapped import unwrapped
from equilibrist.optimizers import Params
from equilibrist.solvers import Solver
from equilibrist.tree import Tree

_SQUARES: dict[type, str] = {
    torch.optim.Adam: "exp_avg_sq",
    torch.optim.AdamW: "exp_avg_sq",
    torch.optim.RMSprop: "square_avg",
    torch.optim.Adagrad: "sum",
}


class TorchRule:
    """A torch.optim optimiser as the update rule of one player of a single run.

    What a solver would descend along is put into `.grad`, then the optimiser steps: it preconditions
    the solver's direction. Its learning rates and schedules stay its own; its moments belong to the
    solver's state, for some solvers look ahead with a copy of them, or begin them anew. The first
    `init` takes over the moments that the optimiser has.

        opt = torch.optim.Adam(critic.parameters(), 1e-4)
        Alternating(optimizers={"critic": TorchRule(opt, critic), ...})

    Raises:
        GameError: a parameter of the module that the optimiser does not hold, or one of the optimiser
            that is not the module's: each player needs an optimiser of its own.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, module: nn.Module) -> None:
        self.optimizer = optimizer
        self.parameters = dict(unwrapped(module).named_parameters())
        self._begun = False
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        for name, p in self.parameters.items():
            if p.requires_grad and id(p) not in held:
                raise GameError(
                    f"the optimiser does not hold {name!r} of {type(module).__name__}: build it from "
                    "module.parameters()"
                )
        if held - {id(p) for p in self.parameters.values()}:
            raise GameError(
                f"the optimiser holds parameters that are not of {type(module).__name__}, and its step "
                "would move them too: give each player an optimiser of its own"
            )

    def __repr__(self) -> str:
        return f"TorchRule({type(self.optimizer).__name__})"

    def init(self, params: Params) -> Tree:
        """The optimiser's moments by parameter; from the second time on none, as at a beginning."""
        fresh, self._begun = self._begun, True
        return {} if fresh else {name: self._moments(name) for name in params}

    def update(self, grads: Params, state: Tree, params: Params) -> None:
        """One step of the optimiser from `params` along `grads`, with the moments of `state`; both are
        overwritten, the module is not unless `params` are its own tensors."""
        own = {name: p.data for name, p in self.parameters.items()}
        for name, value in params.items():
            if own[name].shape != value.shape:
                raise GameError(
                    f"TorchRule serves single runs, not stacked ones: {name} has shape {list(value.shape)}, "
                    f"the module's {list(own[name].shape)}"
                )
        try:
            for name, parameter in self.parameters.items():
                parameter.grad = grads.get(name)
                if name in params:
                    # Values that a projection or a look-ahead has made stand in for the module's.
                    parameter.data = params[name]
                    self.optimizer.state[parameter] = dict(state.get(name, {}))
            self.optimizer.step()
        finally:
            for name, parameter in self.parameters.items():
                parameter.data, parameter.grad = own[name], None
        for name in params:
            state[name] = self._moments(name)

    def metric(self, state: Tree) -> Params | None:
        """What the last step divided gradients by (`optimizers.metric`): of SGD, Adam, AdamW, RMSprop and Adagrad.

        Raises:
            GameError: another optimiser. It is asked only under a projection that couples entries.
        """
        kind = type(self.optimizer)
        if kind is torch.optim.SGD:
            return None
        if kind not in _SQUARES:
            raise GameError(
                f"TorchRule cannot step {kind.__name__} under a projection that is no box: what it divides by is "
                f"not known; take one of SGD, {', '.join(k.__name__ for k in _SQUARES)}"
            )
        options = {id(p): group for group in self.optimizer.param_groups for p in group["params"]}
        found = {}
        for name, moments in state.items():
            own = options[id(self.parameters[name])]
            key = "max_exp_avg_sq" if own.get("amsgrad") else _SQUARES[kind]
            square = moments[key]
            if own.get("centered"):
                square = square - moments["grad_avg"].square()
            if "betas" in own:
                square = square / (1 - own["betas"][1] ** float(moments["step"]))
            found[name] = square.sqrt() + own["eps"]
        return found

    def _moments(self, name: str) -> Tree:
        moments = {}
        for key, value in self.optimizer.state.get(self.parameters[name], {}).items():
            if isinstance(value, Tensor):
                moments[key] = value
            elif value is not None:
                raise GameError(
                    f"{type(self.optimizer).__name__} keeps {key!r} as {type(value).__name__}, which no solver "
                    "can copy: choose an optimiser whose state is tensors"
                )
        return moments


class PlayState(TypedDict):
    """What a `Play` saves of itself."""

    steps: int
    state: Tree
    constants: Constants


class Play:
    """One solver's steps on the modules of a loop, in place.

        play = Play(GAN(generator, critic, WGAN(), latent=64), generator, critic, Simultaneous(...))
        for real in loader:
            info = play.step(real)

    Args:
        game: the game, built from these modules. An `AdversarialGame` knows its modules: `Play(game, solver=...)`.
        generator, critic: the modules; their parameters and buffers are overwritten at every step.
        solver: any solver; its update rules may be `TorchRule`s.
        seed: of latents and other draws, addressed by (seed, step).

    Attributes: `steps` taken. Save `play.state_dict()` (moments included) beside the modules' own, and
    the torch optimisers' for their learning rates.
    """

    def __init__(
        self,
        game: GAN | AdversarialGame,
        generator: nn.Module | None = None,
        critic: nn.Module | None = None,
        solver: Solver | None = None,
        seed: int = 0,
    ) -> None:
        if solver is None:
            raise GameError("Play needs a solver: Play(game, generator, critic, Alternating(...))")
        self.game, self.solver, self.seed = game, solver, seed
        if isinstance(game, AdversarialGame):
            self._modules: Any = game.live
        elif generator is None or critic is None:
            raise GameError(
                "Play needs the modules that the GAN was built from: generator and critic"
            )
        else:
            self._modules = unwrapped(generator), unwrapped(critic)
        self._field = VectorField(game)
        start = self._read()
        self._constants: Constants = tree.clone(start.constants)
        self._state = solver.init(start.players)
        self.steps = 0

    def _read(self, constants: Constants | None = None) -> Start:
        if isinstance(self.game, AdversarialGame):
            return self.game.read()
        generator, critic = self._modules
        return self.game.read(generator, critic, constants)

    def here(self) -> Start:
        """Players and constants as the modules hold them now: not copies."""
        return self._read(self._constants)

    def step(self, *batches: object) -> dict[str, dict[str, float]]:
        """One step of the solver; the j-th minibatch that it draws has real samples `batches[j]`, the
        last of them again and again where it draws more (GameError where they must be independent:
        `Consensus(batches=2)`, `Extragradient(fresh=True)`, `Proximal(fresh=True)`). A batch of a
        conditional game is (real, condition), that of an `AdversarialGame` what its losses take.

        Returns: the measurements, {"loss": {player: ...}, "grad_norm": {...}}.
        """
        if not batches:
            raise GameError("step needs at least one batch of real samples")
        here = self.here()
        draws = _OfLoop(
            self.game, batches, self.seed, self.steps, next(iter(tree.leaves(here.players)))
        )
        taken = self.solver.step(self._field, here.players, here.constants, self._state, draws)
        self._constants, self._state = taken.constants, taken.state
        with torch.no_grad():
            for player, module in zip(self.game.players, self._modules, strict=True):
                values = {**taken.constants[player], **taken.players[player]}
                for name, held in [*module.named_parameters(), *module.named_buffers()]:
                    if held.data_ptr() != values[name].data_ptr():
                        held.copy_(values[name])
        self.steps += 1
        return {
            kind: {player: float(value) for player, value in part.items()}
            for kind, part in taken.info.items()
        }

    def state_dict(self) -> PlayState:
        """Tensors and counts: the solver's state, constants, steps."""
        return {
            "steps": self.steps,
            "state": tree.clone(self._state),
            "constants": tree.clone(self._constants),
        }

    def load_state_dict(self, state: PlayState) -> None:
        """The inverse of `state_dict`."""
        self.steps = int(state["steps"])
        self._state, self._constants = tree.clone(state["state"]), tree.clone(state["constants"])


class _OfLoop(Given):
    """Draws whose real samples come from a loop."""

    too_few = "the loop gave {}: call step(first, second, ...) with batches of their own"

    def __init__(
        self,
        game: GAN | AdversarialGame,
        batches: Sequence[object],
        seed: int,
        step: int,
        like: Tensor,
    ) -> None:
        self._game, self._like = game, like
        if isinstance(game, AdversarialGame):
            flat = [game.structure.flat(batch) for batch in batches]
            super().__init__(*flat, seed=seed, step=step)
            return
        pairs = [given if isinstance(given, tuple | list) else (given,) for given in batches]
        if game.condition is not None and any(len(pair) < 2 for pair in pairs):
            raise GameError("the game is conditional: give each batch as (real, condition)")
        named = ("real", "condition") if game.condition is not None else ("real",)
        super().__init__(
            *(dict(zip(named, pair, strict=False)) for pair in pairs), seed=seed, step=step
        )

    def batch(self, index: int = 0) -> Draw:
        dtype, device = self._like.dtype, self._like.device
        draw = super().batch(index)
        rng = generator(self.seed, self.stream, self.step, index=index)
        if isinstance(self._game, AdversarialGame):
            return self._game.draw_around(rng, self._game.batch_of(draw))
        return self._game.draw_around(rng, draw["real"].to(device, dtype), draw.get("condition"))
