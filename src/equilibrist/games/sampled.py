"""What a GAN and a mixture of GANs share: a generator of samples against their critic, on minibatches of data."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from equilibrist.auxiliary import Auxiliary
from equilibrist.certificates import Json
from equilibrist.core.draws import Draw, uniform
from equilibrist.core.game import Constants, Players
from equilibrist.data import Source
from equilibrist.display import Rows, Shown
from equilibrist.errors import GameError
from equilibrist.formulations import Formulation, formulation_of
from equilibrist.games import inputs
from equilibrist.games._scores import CriticScores, Scores
from equilibrist.games.inputs import Latent
from equilibrist.nn.pure import PureModule
from equilibrist.optimizers import Coupled
from equilibrist.penalties import Penalty
from equilibrist.projections import Projection, coupled_by
from equilibrist.tree import Device


class Reals(Protocol):
    """A law of real samples, as `equilibrist.data.Source`; `sample_pairs` where the game is conditional."""

    def sample(self, rng: np.random.Generator, n: int) -> Tensor: ...


def seed_of(draw: Draw) -> int | None:
    """The seed of the random numbers that modules draw, where the draw holds one."""
    seed = draw.get("noise")
    return None if seed is None else int(seed)


class Start(NamedTuple):
    """Where play begins."""

    players: Players
    constants: Constants


class SampledGame(Shown, ABC):
    """A generator of samples against their critic, each with its own loss: a `GAN`, or a `Mixture` of many.

    Losses are those of a formulation on one minibatch of real and generated samples, with penalties and auxiliary
    terms. Which networks make the samples and the scores is the subclass's.

    Args:
        formulation, latent, condition, penalties, auxiliary, projections: as of `GAN`.

    Attributes:
        zero_sum, separable: as in `Game`; `why_not_separable` says what was seen.
        heads: the number of critics.
        samplewise: whether a critic scores each sample by itself, whatever the batch.
        normalised: the critic's weights that are divided by their largest singular values.
        modules: a module of each player, as it was built.
        needs_mix: whether a draw holds mixing weights.
        noise: where modules draw random numbers in their forward pass ("critic.2 (Dropout)"). A draw then holds a seed
            of them, and losses are expectations over them.
        notes: warnings that were given while the game was built, which every certificate repeats.
    """

    players = ("generator", "critic")

    heads: int
    modules: dict[str, nn.Module]
    normalised: tuple[str, ...]
    _pure: dict[str, PureModule]

    def __init__(
        self,
        formulation: Formulation | str,
        *,
        latent: int | tuple[int, ...] | Latent | Source,
        condition: int | tuple[int, ...] | None,
        penalties: Sequence[Penalty],
        auxiliary: Sequence[Auxiliary],
        projections: Sequence[Projection],
    ) -> None:
        self.formulation = formulation_of(formulation)
        inputs.check_parts("penalties", penalties, "needs_mix", "GradientPenalty()")
        inputs.check_parts("auxiliary", auxiliary, "player", "Reconstruction(100.0)")
        inputs.check_parts("projections", projections, "player", "WeightClipping()")
        self.latent, self.condition = inputs.law_of(latent), inputs.condition_of(condition)
        self.penalties, self.projections = tuple(penalties), tuple(projections)
        self.auxiliary = tuple(auxiliary)
        named: list[Projection | Auxiliary] = [*self.projections, *self.auxiliary]
        for part in named:
            if part.player not in self.players:
                raise GameError(f"{part} names no player: choose 'generator' or 'critic'")
        self.zero_sum = self.formulation.zero_sum and not self.penalties and not self.auxiliary
        self.needs_mix = any(p.needs_mix for p in self.penalties)
        self.notes: tuple[str, ...] = ()
        self.samplewise = True
        self.noise: tuple[str, ...] = ()
        self.separable, self.why_not_separable = True, ""

    # -- the game -------------------------------------------------------------------------------

    def losses(
        self, players: Players, constants: Constants, draw: Draw, only: str | None = None
    ) -> dict[str, Tensor]:
        """Each player's loss on draw = {real [B, ...], latent [B, ...], condition [B, ...] of conditional
        games, mix [B] if penalties need it}. With only="critic" a `fake` [B, ...] in the draw stands for the
        generator's samples."""
        if only == "critic" and "fake" in draw:  # made beforehand, for a generator that rests
            fake = draw["fake"]
        else:
            fake = self.fakes(players, constants, draw)
        return self.against(players, constants, draw, fake, only)

    @abstractmethod
    def against(
        self,
        players: Players,
        constants: Constants,
        draw: Draw,
        fake: Tensor,
        only: str | None = None,
    ) -> dict[str, Tensor]:
        """The losses once the generated samples [B, ...] are made: of the players, the critic's alone are read."""

    @abstractmethod
    def refresh(
        self, players: Players, constants: Constants, draw: Draw, exact: bool = False
    ) -> Constants:
        """New power vectors and running statistics (see `Game`)."""

    def project(self, players: Players) -> Players:
        """Every projection on its player."""
        for projection in self.projections:
            players = {**players, projection.player: projection(players[projection.player])}
        return players

    # The field skips a projection that changes nothing; one of a subclass's own may change anything.
    project.applies_projections = True  # type: ignore[attr-defined]

    @property
    def coupled(self) -> dict[str, Coupled]:
        """What the projections couple, by player."""
        return {
            player: coupled_by([one for one in self.projections if one.player == player])
            for player in self.players
        }

    @property
    def one_by_one(self) -> bool:
        """Whether the members of a stack are evaluated one after the other, which random numbers of modules need."""
        return bool(self.noise)

    # -- its pieces ------------------------------------------------------------------------------

    @abstractmethod
    def generate(
        self,
        players: Players,
        constants: Constants,
        latent: Tensor,
        condition: Tensor | None = None,
        seed: int | None = None,
    ) -> Tensor:
        """Generated samples [B, ...]; `seed` is that of the random numbers that the generator draws."""

    @abstractmethod
    def critic(
        self,
        players: Players,
        constants: Constants,
        condition: Tensor | None = None,
        head: int = 0,
        seed: int | None = None,
    ) -> Scores:
        """Critic number `head` as a function of samples; `seed` is that of the random numbers that it draws."""

    def fakes(self, players: Players, constants: Constants, draw: Draw) -> Tensor:
        """The generated samples [B, ...] of a draw."""
        return self.generate(
            players, constants, draw["latent"], draw.get("condition"), seed_of(draw)
        )

    def critic_of(
        self, players: Players, constants: Constants, draw: Draw, head: int = 0
    ) -> CriticScores:
        """Critic number `head` as a function of samples, under a draw's conditions and noise."""
        return self.critic(players, constants, draw.get("condition"), head, seed_of(draw))

    def reals(self, players: Players, constants: Constants, draw: Draw) -> Tensor:
        """The real samples [B, ...] of a draw."""
        return draw["real"]

    def lacks(self, *wanted: str) -> str:
        """The first of these ("samples", "score") that the game cannot give; "" where it can."""
        return ""

    def yardstick(
        self, players: Players, constants: Constants, bank: Sequence[Draw], player: str
    ) -> float:
        """How large a difference of a player's loss is large, on a bank of draws: the formulation's scale."""
        draw = bank[0]
        if self.separable:
            draw = {k: torch.cat([one[k] for one in bank]) for k in draw}
        return float(self.scale(players, constants, draw))

    def covered(self, source: Any, rows: Tensor, device: Device, dtype: torch.dtype) -> Draw:
        """The part of a draw that these rows of a finite source are, with their conditions where there are any."""
        if self.condition is None:
            take = getattr(source, "take", None)
            return {"real": source.all()[rows] if take is None else take(rows)}
        real, condition = source.take_pairs(rows)
        return {"real": real, "condition": inputs.as_condition(condition, device, dtype)}

    def scale(self, players: Players, constants: Constants, draw: Draw) -> Tensor:
        """The formulation's yardstick for differences of losses, on one draw; of several critics, the
        mean of theirs, as the losses are."""
        with torch.no_grad():
            fake = self.fakes(players, constants, draw)
            scales = [
                self.formulation.scale(
                    self.critic_of(players, constants, draw, head),
                    self.reals(players, constants, draw),
                    fake,
                )
                for head in range(self.heads)
            ]
            return scales[0] if self.heads == 1 else torch.stack(scales).mean()

    def draw(
        self,
        rng: np.random.Generator,
        source: Reals,
        batch: int,
        dtype: torch.dtype = torch.float32,
        device: Device = None,
    ) -> Draw:
        """One minibatch: real samples (with their conditions) first, then latents, mixing weights, and noise's seed."""
        if self.condition is None:
            return self.draw_around(rng, source.sample(rng, batch).to(device, dtype))
        if not hasattr(source, "sample_pairs"):
            name = getattr(source, "name", type(source).__name__)
            raise GameError(
                f"the game is conditional, but {name} has no conditions: take data with labels, "
                "or leave condition out"
            )
        real, condition = source.sample_pairs(rng, batch)
        return self.draw_around(rng, real.to(device, dtype), condition)

    def draw_around(self, rng: np.random.Generator, real: Tensor, condition: Any = None) -> Draw:
        """The draw of these real samples [n, ...] with their conditions: latents, then mixing weights, of their
        precision and where they are."""
        draw: Draw = {"real": real}
        if self.condition is not None:
            draw["condition"] = inputs.as_condition(condition, real.device, real.dtype)
        draw["latent"] = self.latent.sample(rng, len(real), real.dtype, real.device)
        if self.needs_mix:
            draw["mix"] = uniform(rng, (len(real),), real.dtype, real.device)
        return self.with_noise(rng, draw)

    def with_noise(self, rng: np.random.Generator, draw: Draw) -> Draw:
        """The draw, with a seed of the random numbers that modules draw themselves, where any do."""
        if self.noise:
            draw["noise"] = torch.tensor(int(rng.integers(2**63 - 1)))
        return draw

    @abstractmethod
    def init(
        self, seed: int | None = None, *, device: Device = None, dtype: torch.dtype | None = None
    ) -> Start:
        """Where play begins, from fresh weights where there is a seed."""

    @abstractmethod
    def load(self, players: Players, constants: Constants) -> dict[str, nn.Module]:
        """Modules that hold these values, by player."""

    # -- the record -------------------------------------------------------------------------------

    @abstractmethod
    def describe(self) -> Json:
        """What was built, for the record: plain values only."""

    def _about_losses(self) -> Json:
        """What a record says of the losses."""
        return {
            "formulation": str(self.formulation),
            "spec": repr(self.formulation),
            "loss": self.formulation.formula,
            "unit": self.formulation.unit,
            "zero_sum": self.zero_sum,
            "separable": self.separable,
        }

    def note(self, text: str) -> None:
        """Warn of what was seen, and keep it for the certificates of every audit (`notes`)."""
        self.notes = (*self.notes, text)
        warnings.warn(text, stacklevel=2)

    def _facts(self) -> tuple[str, Rows]:
        caption = self.describe()
        rows = [
            (player, f"{one['class']}, {one['parameters']:,} parameters")
            for player, one in caption["players"].items()
        ]
        rows += [("losses", caption["formulation"]), ("latent", caption["latent"])]
        for name in ("condition", "penalties", "auxiliary", "projections", "spectral_norm"):
            if value := caption.get(name):
                rows.append((name, ", ".join(value) if isinstance(value, list) else str(value)))
        return type(self).__name__, rows
