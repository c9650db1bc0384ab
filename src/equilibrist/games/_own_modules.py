"""The modules of a game of own losses: copies that audits use, the user's own, and what is read off either."""

from __future__ import annotations

from abc import ABC
from collections.abc import Mapping
from itertools import combinations
from typing import NoReturn

import torch
from torch import Tensor, nn

from equilibrist import tree
from equilibrist.certificates import Json
from equilibrist.core.game import Constants, Players
from equilibrist.errors import GameError
from equilibrist.games import inputs
from equilibrist.games._own_players import Held, class_of, one_module
from equilibrist.games.sampled import SampledGame, Start
from equilibrist.nn.pure import Former, PureModule
from equilibrist.nn.torch_spectral_norm import Foreign, foreign
from equilibrist.nn.wrapped import copied, unwrapped


class OwnModules(SampledGame, ABC):
    """Players as a user's own modules.

    Attributes:
        names: the players' own names by those that audits use.
        stops: where a player's own gradient is stopped.
    """

    names: dict[str, str]
    stops: tuple[str, ...]

    def _hold(self, players: Mapping[str, Held], frozen: Mapping[str, nn.Module]) -> None:
        """Copies of the players' modules, and of those that nobody trains."""
        self._live = {p: one_module(name, players[name]) for p, name in self.names.items()}
        for a, b in combinations(self.players, 2):
            inputs.apart(self._live[a], self._live[b], self.names[a], self.names[b])
        self._made: dict[str, Foreign] = {
            p: foreign(self._live[p], "generator") for p in self.players
        }
        self.modules = {p: self._made[p].module for p in self.players}
        self._pure = {p: PureModule(m, self.names[p]) for p, m in self.modules.items()}
        # By what constants call them, which is not the name of a role that a player has.
        called = {f"frozen {name}" if name in self.players else name: name for name in frozen}
        self._rested = {
            key: copied(unwrapped(frozen[name]), name).requires_grad_(False)
            for key, name in called.items()
        }
        self._frozen = {key: PureModule(m, called[key]) for key, m in self._rested.items()}
        pure = [*self._pure.values(), *self._frozen.values()]
        self._modes = [(layer, layer.training) for one in pure for layer in one.module.modules()]

    def _enter(self, players: Players, constants: Constants) -> list[tuple[PureModule, Former]]:
        """Put these values into the modules; what `_leave` needs to take them out."""
        held: list[tuple[PureModule, Former]] = []
        try:
            for p in self.players:
                pure = self._pure[p]
                held.append((pure, pure.hold(players[p], constants[p])))
            for name, pure in self._frozen.items():
                held.append((pure, pure.hold({}, constants[name])))
        except KeyError:
            self._leave(held)
            raise
        return held

    def _leave(self, held: list[tuple[PureModule, Former]]) -> None:
        for pure, former in reversed(held):
            pure.release(former)

    def _settle(self, graph: bool) -> None:
        """Modes as they were when the game was built, whatever the user's function left: `critic.eval()`, or gradients
        switched off."""
        for layer, mode in self._modes:
            if layer.training is not mode:
                layer.training = mode
        if torch.is_grad_enabled() is not graph:
            torch.set_grad_enabled(graph)

    @property
    def live(self) -> tuple[nn.Module, ...]:
        """The user's modules, one a player."""
        return tuple(self._live[p] for p in self.players)

    # -- values and modules ------------------------------------------------------------------------

    def init(
        self,
        seed: int | None = None,
        *,
        device: tree.Device = None,
        dtype: torch.dtype | None = None,
    ) -> Start:
        """Copies of the parameters and buffers that the players were given with; a seed changes nothing."""
        return self._values(self.modules, device, dtype, copies=True)

    def read(self, *_: nn.Module, constants: Constants | None = None) -> Start:
        """The values that the user's modules, those that the game was built from, hold now: views, no copies."""
        return self._values(self._live, None, None, copies=False)

    def _values(
        self,
        modules: Mapping[str, nn.Module],
        device: tree.Device,
        dtype: torch.dtype | None,
        copies: bool,
    ) -> Start:
        players: Players = {}
        constants: Constants = {}
        for p in self.players:
            # The copies of modules in half precision have float32.
            kinds = {k: t.dtype for k, t in _tensors(self.modules[p])}
            held = {k: t.detach().to(kinds[k]) for k, t in _tensors(modules[p])}
            free = {k for k, t in self.modules[p].named_parameters() if t.requires_grad}
            players[p] = {k: t for k, t in held.items() if k in free}
            constants[p] = {k: t for k, t in held.items() if k not in free}
        anchor = tree.leaves(players)[0]
        for name, module in self._rested.items():
            constants[name] = {k: t.detach().to(anchor.device) for k, t in _tensors(module)}
            constants[name] = tree.to(constants[name], dtype=dtype or anchor.dtype)
        if copies:
            players, constants = tree.clone(players), tree.clone(constants)
        players, constants = (tree.to(t, device=device, dtype=dtype) for t in (players, constants))
        return Start(self.project(players) if copies else players, constants)

    def load(self, players: Players, constants: Constants) -> dict[str, nn.Module]:
        """Modules that hold these values, by player."""
        loaded: dict[str, nn.Module] = {}
        for p in self.players:
            module = copied(self.modules[p], p)
            held = {**constants[p], **players[p]}
            with torch.no_grad():
                for name, value in _tensors(module):
                    value.data = held[name].detach().clone()
            loaded[p] = module
        return loaded

    def state_of(self, player: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A state_dict of a loaded player as one that loads into what the user holds."""
        return self._made[player].settled(state)

    def lags(self) -> dict[str, dict[str, float]]:
        """By player, how far torch's estimates of spectral norms are off (`Foreign.lags`)."""
        return {p: self._made[p].lags(self._live[p]) for p in self.players}

    def half(self) -> list[tuple[str, tuple[str, ...]]]:
        """The precisions below float32 in which players were given, of which the copies have float32."""
        return [(p, self._made[p].half) for p in self.players]

    def describe(self) -> Json:
        """What was built, for the record: plain values only."""
        return {
            **self._about_losses(),
            "projections": [repr(p) for p in self.projections],
            "spectral_norm": any(self._made[p].spectral for p in self.players),
            **({"noise": list(self.noise)} if self.noise else {}),
            **({"stops": list(self.stops)} if self.stops else {}),
            "latent": str(self.latent),
            "players": {
                p: {
                    "class": class_of(m),
                    "name": self.names[p],
                    "parameters": sum(q.numel() for q in m.parameters()),
                    "structure": repr(m),
                }
                for p, m in self.modules.items()
            },
        }

    # -- what other games have --------------------------------------------------------------------

    def against(self, *_: object, **__: object) -> NoReturn:
        """Not available: these losses make their samples themselves."""
        raise GameError("losses of your own make their samples themselves")

    def generate(self, *_: object, **__: object) -> NoReturn:
        """Not available: `samples` takes a batch."""
        raise GameError(
            "losses of your own make samples of a draw: take fakes(players, constants, draw)"
        )

    def critic(self, *_: object, **__: object) -> NoReturn:
        """Not available: `score` takes a batch."""
        raise GameError(
            "losses of your own score under a draw: take critic_of(players, constants, draw)"
        )


def _tensors(module: nn.Module) -> list[tuple[str, Tensor]]:
    """Parameters and buffers by name."""
    return [*module.named_parameters(), *module.named_buffers()]
