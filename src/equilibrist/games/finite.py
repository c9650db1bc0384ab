"""A GAN on given rows: one draw of them, and the finite game whose losses are means over exactly these."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from equilibrist import tree
from equilibrist.core.draws import Draw
from equilibrist.core.exact import Exact, followed
from equilibrist.core.game import Constants, Plain, Players, coupled_parameters
from equilibrist.errors import GameError
from equilibrist.formulations.gradient import input_gradient
from equilibrist.games._scores import Scores
from equilibrist.games.gan import GAN
from equilibrist.games.inputs import as_condition


def draw_of_rows(
    game: GAN,
    samples: Tensor,
    latents: Tensor,
    *,
    condition: Tensor | None = None,
    mix: Tensor | None = None,
) -> Draw:
    """One draw of a GAN, made of rows of your own.

    Args:
        game: the game.
        samples: real samples [B, ...], floating: the draw takes their precision and device.
        latents: the generator's inputs [B, ...].
        condition: what a conditional game shows beside them: labels [B], or conditions [B, ...].
        mix: shares of the real samples [B] between 0 and 1, for a penalty between real and generated ones
            (`GradientPenalty`).

    Returns:
        What `game.losses` takes, and `equilibrist.Given` hands to a solver's step.

    Raises:
        GameError: rows that are missing, not asked for, not finite, or not one for each sample.

    Examples:
        >>> import equilibrist as eq
        >>> game = eq.GAN(torch.nn.Linear(3, 2), torch.nn.Linear(2, 1), eq.Vanilla(), latent=3)
        >>> draw = draw_of_rows(game, torch.zeros(8, 2), torch.zeros(8, 3))
        >>> {name: tuple(rows.shape) for name, rows in draw.items()}
        {'real': (8, 2), 'latent': (8, 3)}
    """
    draw = {"real": samples, "latent": latents, "condition": condition, "mix": mix}
    unused = {
        "condition": game.condition is None,
        "mix": not any(penalty.needs_mix for penalty in game.penalties),
    }
    for name, rows in draw.items():
        if unused.get(name):
            _require(rows is None, f"the game has no use for {name}: leave it out")
            continue
        if not isinstance(rows, Tensor) or not rows.ndim or not len(rows) == len(samples) > 0:
            raise GameError(f"draw_of_rows: {name} must be a tensor with one row for each sample")
        _require(bool(rows.isfinite().all()), f"{name} holds numbers that are not finite")
    _require(
        samples.is_floating_point() and latents.is_floating_point(),
        "samples and latents must be floats: scale them as in training",
    )
    wanted = game.latent.sample(np.random.default_rng(0), 1, samples.dtype, None).shape[1:]
    _require(
        latents.shape[1:] == wanted,
        f"latents of shape {list(latents.shape)} do not fit the game: give [B, {', '.join(map(str, wanted))}]",
    )
    return {
        name: as_condition(rows, samples.device, samples.dtype)
        for name, rows in draw.items()
        if rows is not None
    }


def _require(holds: bool, remedy: str) -> None:
    if not holds:
        raise GameError(f"draw_of_rows: {remedy}")


class FiniteGAN(Plain):
    """A GAN on a fixed bank of rows: a game without draws, whose losses are means over exactly these.

    Every statement about it is deterministic and holds for this finite game: `checks.audit_game(finite, players)`
    has intervals of no width and may VERIFY, `solvers.iterate` takes full-batch steps, `spectra.jacobian` is exact.
    Nothing follows for the laws that the rows come from: on other rows a generator that has learnt these by heart
    loses what it gains here. Singular vectors of spectrally normalised weights follow the weights, and batch norm
    takes the bank as one batch.

    Args:
        game: the GAN.
        samples, latents, condition, mix: the bank, as `draw_of_rows` takes them. All rows are evaluated at once.
        constants: buffers and frozen parameters, held at these values; None takes the game's own.

    Raises:
        GameError: a bank that `draw_of_rows` refuses.

    Examples:
        >>> import equilibrist as eq
        >>> game = eq.GAN(torch.nn.Linear(3, 2), torch.nn.Linear(2, 1), eq.Vanilla(), latent=3)
        >>> finite = FiniteGAN(game, torch.ones(8, 2), torch.zeros(8, 3))
        >>> found = eq.checks.audit_game(finite, game.init().players, checks=["stationary"], progress="none")
        >>> found["stationary"].verdict.value
        'REFUTED'
    """

    players = GAN.players

    def __init__(
        self,
        game: GAN,
        samples: Tensor,
        latents: Tensor,
        *,
        condition: Tensor | None = None,
        mix: Tensor | None = None,
        constants: Constants | None = None,
    ) -> None:
        self.draws = draw_of_rows(game, samples, latents, condition=condition, mix=mix)
        self.gan, self.zero_sum = game, game.zero_sum
        self.formulation, self.penalties = game.formulation, game.penalties
        self.unit, self.notes = game.formulation.unit, game.notes
        self.constants = game.init().constants if constants is None else constants
        self.coupled = coupled_parameters(game)
        if game.heads == 1 and game.samplewise:  # else no score has a slope of its own
            self.sobolev = self._sobolev

    @property
    def scope(self) -> dict[str, str]:
        """What an audit's certificates are about."""
        rows = len(self.draws["real"])
        return {
            "penalties": "part of the critic's own loss" if self.penalties else "none",
            "critic_class": "all weights of this architecture within its constraints",
            "data": f"exactly these {rows} samples and {rows} latents: no statement about their laws",
        }

    def losses(
        self, players: Players, constants: Constants, draw: Draw, only: str | None = None
    ) -> dict[str, Tensor]:
        """Each player's own loss: the GAN's, on the whole bank."""
        fixed, rows = self._like(players)
        losses: dict[str, Tensor] = Exact(self.gan).losses(players, fixed, rows, only)
        return losses

    def project(self, players: Players) -> Players:
        """The GAN's."""
        return self.gan.project(players)

    def critic(self, players: Players, constants: Constants) -> Scores:
        """The critic as a function of samples."""
        fixed, rows = self._like(players)
        seen = {**fixed, "critic": followed(players["critic"], fixed["critic"])}
        return self.gan.critic(players, seen, rows.get("condition"))

    def _sobolev(self, players: Players) -> Tensor:
        """M [n, n] = E[(d_w grad_x D)^T (d_w grad_x D)] over the bank's samples, n the critic's parameters: the
        Hessian of 1/2 E |grad_x D_w' - grad_x D_w|^2 at w' = w."""
        part, real = players["critic"], self._like(players)[1]["real"]
        here = input_gradient(self.critic(players, {}), real).detach()

        def half(w: Tensor) -> Tensor:
            moved = {**players, "critic": tree.unflatten(w, part)}
            slopes = input_gradient(self.critic(moved, {}), real)
            return (slopes - here).square().sum() / (2 * len(real))

        found: Tensor = torch.autograd.functional.hessian(half, tree.flatten(part))
        return found

    def _like(self, players: Players) -> tuple[Constants, Draw]:
        """Constants and rows as numbers of the players' kind, on their device."""
        x = tree.leaves(players)[0]
        fixed, rows = (
            tree.to(t, device=x.device, dtype=x.dtype) for t in (self.constants, self.draws)
        )
        return fixed, rows
