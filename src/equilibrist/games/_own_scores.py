"""What a game of own losses has in the place of a formulation and a critic."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

import numpy as np
import torch
from torch import Tensor

from equilibrist.core.draws import Draw
from equilibrist.core.game import Constants, Players
from equilibrist.errors import GameError
from equilibrist.formulations import Critic, Formulation
from equilibrist.games import inputs
from equilibrist.games._own_players import Function
from equilibrist.games.inputs import Latent
from equilibrist.tree import Device

if TYPE_CHECKING:
    from equilibrist.games.adversarial import AdversarialGame

LATENT = "latent"


@dataclass(frozen=True)
class OwnLosses:
    """Losses of a user's own, where a formulation stands in other games.

    Attributes:
        function: the losses.
        named: the formulation whose unit and yardstick they have, or None.
    """

    function: Function | Mapping[str, Function]
    named: Formulation | None = None
    zero_sum: bool = False

    def __str__(self) -> str:
        return f"losses of your own ({self._called})"

    def __repr__(self) -> str:
        return f"OwnLosses({self._called}, {self.named!r})"

    @property
    def _called(self) -> str:
        functions = (
            self.function.values() if isinstance(self.function, Mapping) else [self.function]
        )
        return ", ".join(dict.fromkeys(getattr(f, "__name__", type(f).__name__) for f in functions))

    @property
    def formula(self) -> str:
        """Where the losses come from."""
        return f"each player minimises its entry of {self._called}(modules, batch)"

    @property
    def unit(self) -> str:
        """That of the formulation that is named."""
        return self.named.unit if self.named is not None else "loss units"

    @property
    def second_order(self) -> bool:
        """Whether derivatives of gradients are exact."""
        return bool(getattr(self.named, "second_order", True))

    def scale(self, critic: Critic, real: Tensor, fake: Tensor) -> Tensor:
        """That of the formulation that is named."""
        assert self.named is not None
        return self.named.scale(critic, real, fake)

    def losses(self, *_: object, **__: object) -> NoReturn:
        """Not available from scores."""
        raise GameError("losses of your own are no functions of scores alone")


class OwnScores:
    """The critic under a draw's batch and noise, by the user's `score`: samples [n, ...] to scores [n].

    `samplewise` is False: real and generated samples take passes of their own.
    """

    samplewise = False

    def __init__(
        self, game: AdversarialGame, players: Players, constants: Constants, draw: Draw
    ) -> None:
        self._at, self._game = (players, constants, draw), game

    def __call__(self, x: Tensor) -> Tensor:
        scores: object = self._game.score_of(*self._at, x)
        if not isinstance(scores, Tensor):
            what = type(scores).__name__
            raise GameError(f"score must return one tensor, a score for each sample, not {what}")
        return scores.float().flatten() if scores.dtype in inputs.HALF else scores.flatten()

    by_sample = __call__


class Laws(dict[str, Latent]):
    """Laws of latents by name; `single` where the user's function takes one tensor and no dictionary."""

    single: bool = False

    def __str__(self) -> str:
        return ", ".join(f"{name}: {law}" for name, law in self.items()) or "none"

    def sample(
        self, rng: np.random.Generator, n: int, dtype: torch.dtype, device: Device
    ) -> Tensor:
        """Not available as one tensor."""
        raise GameError("latents of own losses belong to a draw: take draw(rng, data, batch)")


RESERVED = ("noise", "fake")  # what draws hold besides batches and latents


def laws_of(latent: object, taken: Sequence[str] = ()) -> Laws:
    """The laws of what losses draw: none, one, or several by name.

    Args:
        latent: a dimension, a law, or a dictionary of them.
        taken: names of what batches hold.

    Raises:
        GameError: neither a dimension nor a law, or a name that is taken.
    """
    if latent is None:
        return Laws()
    if isinstance(latent, Mapping):
        if not latent:
            raise GameError("latent={} names no latent: leave it out, or write latent=64")
        for name in latent:
            if name in taken or name in RESERVED:
                raise GameError(
                    f"a latent is called {name!r}, as something else in a draw is: give it another name"
                )
        return Laws({str(name): inputs.law_of(law) for name, law in latent.items()})
    laws = Laws({LATENT: inputs.law_of(latent)})
    laws.single = True
    return laws


def batch_size(batch: object, data: object, otherwise: int) -> int:
    """Samples in a minibatch: as given, else as the loader has it.

    Raises:
        GameError: no whole number of at least 1.
    """
    if batch is None:
        own = getattr(data, "batch_size", None)
        return own if isinstance(own, int) and own > 0 else otherwise
    if isinstance(batch, bool) or not isinstance(batch, int) or batch < 1:
        raise GameError(f"batch={batch!r}: it must be a whole number of at least 1")
    return batch


def check_functions(**given: object) -> None:
    """GameError where an argument that must be a function is something else."""
    for name, function in given.items():
        if function is not None and not callable(function):
            raise GameError(f"{name}={function!r}: give a function, or leave it out")


def accepted_arguments(function: Callable[..., object]) -> tuple[int, set[str]]:
    """What a function can be given.

    Args:
        function: any.

    Returns:
        How many arguments it takes by position, at most, and the names of all that it takes.
    """
    found = inspect.signature(function).parameters.values()
    if any(p.kind is p.VAR_POSITIONAL for p in found):
        return 9, {p.name for p in found}
    plain = [p for p in found if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return len([p for p in plain if p.name != "only"]), {p.name for p in found}


def detached(found: object) -> object:
    """What a function returned, without its graph."""
    if isinstance(found, Tensor):
        return found.detach()
    if isinstance(found, Mapping):
        return {key: detached(value) for key, value in found.items()}
    return tuple(detached(value) for value in found) if isinstance(found, tuple | list) else found


def leaf(t: Tensor) -> Tensor:
    """The tensor, or a leaf of its value where it has no gradient."""
    return t if t.requires_grad or not t.is_floating_point() else t.detach().requires_grad_()


def with_own_flag(t: Tensor) -> Tensor:
    """The tensor, or its value with a flag of its own where it has no gradient."""
    return t if t.requires_grad else t.detach()


def precision_of(players: Players) -> torch.dtype:
    """The precision of the players."""
    return next(t.dtype for part in players.values() for t in part.values())
