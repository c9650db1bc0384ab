"""What the checks share: the pair under audit, its splits of the data, paired differences, and what is spent."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Protocol

import numpy as np
import torch

from equilibrist import tree
from equilibrist.checks._decide import Interval
from equilibrist.checks._settings import Settings
from equilibrist.checks.certificate import Json, Tolerance
from equilibrist.core.draws import Batch, Draw, Use, normal
from equilibrist.core.exact import Exact
from equilibrist.core.field import VectorField
from equilibrist.core.game import Constants, Game, Players, Wrapped
from equilibrist.data import Source
from equilibrist.errors import RecipeError
from equilibrist.games import SampledGame

PARTS = ("optimise", "select", "score")

Show = Callable[[Players, Constants], torch.Tensor]  # a sheet of samples of these players


class Tick(Protocol):
    """Called with the minibatch gradients that were spent since the last call."""

    def __call__(self, gradients: float = 1.0, /) -> None: ...


def no_tick(gradients: float = 1.0, /) -> None:
    """A `Tick` that counts nothing."""


class SpentError(Exception):
    """No more minibatch gradients may be spent."""


class Meter:
    """A tick that counts what it passes on, and raises `SpentError` above `most`."""

    def __init__(self, tick: Tick, most: float = math.inf) -> None:
        self.tick, self.most, self.spent = tick, most, 0.0

    def __call__(self, gradients: float = 1.0) -> None:
        self.spent += gradients
        self.tick(gradients)
        if self.spent > self.most:
            raise SpentError


def student(values: torch.Tensor, confidence: float) -> Interval:
    """Mean of independent values with Student's interval; infinite for fewer than two of them."""
    from scipy.special import stdtrit

    n = len(values)
    mean = float(values.double().mean())
    if n < 2:
        return Interval(mean, -float("inf"), float("inf"))
    reach = float(stdtrit(n - 1, 0.5 + confidence / 2)) * float(values.double().std()) / n**0.5
    return Interval(mean, mean - reach, mean + reach)


def order_of(game: Game) -> tuple[str, str]:
    """(leader, follower): the player that minimises V and the one that maximises it; of more than two, the first and
    the last, neither of which leads."""
    usual = "generator" if "generator" in game.players else game.players[0]
    leader = getattr(game, "leader", usual)
    others = [player for player in game.players if player != leader]
    return leader, others[-1]


class ValueGame(Wrapped):
    """V = -(the follower's own loss), which the leader (the generator) minimises and the follower (the critic)
    maximises.

    Proximal equilibria are of one value V. Where a game's losses are not zero-sum (a non-saturating
    generator, a penalty that only the critic pays), V is minus what the critic minimises, penalties
    included: then the maximum over critics, and with it the envelope formula, is that of the critic
    that was trained. The critic's loss must hold the generator's samples with their graph, as it does when
    no player is singled out.
    """

    zero_sum = True

    @property
    def players(self) -> tuple[str, str]:
        """Leader and follower."""
        return order_of(self.game)

    def losses(
        self, players: Players, constants: Constants, draw: Draw, only: str | None = None
    ) -> dict[str, torch.Tensor]:
        leader, follower = self.players
        paid = self.game.losses(players, constants, draw)[follower]
        return {leader: -paid, follower: paid}


class AuditContext:
    """The pair under audit and three disjoint parts of its data.

    Everything here is a copy or a pure function: the pair that was handed over stays as it was. The
    searches run in the pair's own precision, the scores in float64, both with exact singular vectors
    where the critic is spectrally normalised.

    `sampled` says that losses are expectations over draws; `ExactContext` is the context of games whose losses
    are exact.
    """

    sampled = True
    # Another pair, from which a path leads here, and what it is.
    origin: Players | None = None
    origin_name = ""

    def __init__(
        self,
        game: SampledGame,
        players: Players,
        constants: Constants,
        data: Source,
        settings: Settings,
        seed: int,
        iterate: str = "last",
    ) -> None:
        self.game, self.settings, self.seed = game, settings, seed
        self.iterate = iterate
        self.players = tree.clone(players)
        anchor = tree.leaves(self.players)[0]
        self.dtype, self.device = anchor.dtype, anchor.device
        if unknown := [name for name in settings.optimizers if name not in game.players]:
            raise RecipeError(f"audit setting optimizers names {unknown[0]!r}, which is no player")
        self.data = data = data.to(self.device, self.dtype)
        rng = Use.SPLIT.at().generator(seed)
        self.parts: dict[str, Source] = dict(
            zip(PARTS, data.split((0.5, 0.25, 0.25), rng), strict=True)
        )
        self.constants = self.exact(self.players, tree.clone(constants))
        self.lag = _lag(game, self.players, constants)
        self.parts["all"] = data
        self._banks: dict[str, list[Draw]] = {}
        self._scales: dict[str, float] = {}

    def with_settings(self, settings: Settings) -> AuditContext:
        """The same pair and splits under other settings."""
        other = copy.copy(self)
        other.settings, other._banks, other._scales = settings, {}, {}
        return other

    def exact(self, players: Players, constants: Constants) -> Constants:
        """Constants with exact singular vectors at `players`."""
        return self.game.refresh(players, constants, {}, exact=True)

    def minibatch(self, step: int, part: str = "optimise", index: int = Batch.DESCENT) -> Draw:
        """An i.i.d. minibatch from a part of the data ("all": from all of it); the same address gives
        the same draw. `index` is a `Batch`: what it is for."""
        place = list(self.parts).index(part)
        where = Use.MINIBATCH.at(part=place, step=step, index=Batch(index))
        rng = where.generator(self.seed)
        return self.game.draw(rng, self.parts[part], self.settings.batch, self.dtype, self.device)

    def bank(self, part: str) -> list[Draw]:
        """Fixed float64 batches of a part of the data, without replacement: all of it, or as much as
        that many batches hold.

        Separable games get `batches` of them, however small; where a batch's samples interact (batch
        norm) each has the size of a minibatch, and a part too small for eight is drawn from with
        replacement (see `resampling`).
        """
        if part not in self._banks:
            self._banks[part] = list(self._bank(part))
        return self._banks[part]

    def _bank(self, part: str) -> Iterator[Draw]:
        source, batch = self.parts[part].to(dtype=torch.float64), self.settings.batch
        count = self.settings.batches if part == "score" else self.settings.look_batches
        rng = Use.BANK.at(part=PARTS.index(part)).generator(self.seed)
        if source.size is None:
            for _ in range(count):
                yield self.game.draw(rng, source, batch, torch.float64, self.device)
            return
        if self.game.separable:
            batch = min(batch, -(-source.size // count))
        elif source.size // batch < 8:
            for _ in range(min(count, 16)):
                yield self.game.draw(rng, source, batch, torch.float64, self.device)
            return
        order = torch.from_numpy(rng.permutation(source.size)).to(self.device)
        for rows in order.split(batch)[:count]:
            if len(rows) < batch:  # a remainder would weigh as much as a whole batch
                break
            # The draw's own real samples are replaced: those are i.i.d., these cover the part.
            draw = self.game.draw(rng, source, batch, torch.float64, self.device)
            yield {**draw, **self.game.covered(source, rows, self.device, torch.float64)}

    def resampling(self, part: str) -> float:
        """How much wider an interval over a bank must be because its batches share real samples:
        sqrt(1 + drawn / size) where they were drawn with replacement, else 1."""
        size = self.parts[part].size
        if size is None or self.game.separable or size // self.settings.batch >= 8:
            return 1.0
        return float((1 + len(self.bank(part)) * self.settings.batch / size) ** 0.5)

    def interval(self, values: torch.Tensor, part: str = "score") -> Interval:
        """The mean of one value a batch of a part's bank, with Student's interval, widened where the
        batches share samples."""
        found = student(values, self.settings.confidence)
        reach = found.half_width * self.resampling(part)
        return Interval(found.mean, found.mean - reach, found.mean + reach)

    # -- what second-order checks are taken of ----------------------------------------------------

    @cached_property
    def wide(self) -> tuple[Players, Constants]:
        """The pair in float64, its singular vectors exact."""
        players = tree.to(self.players, dtype=torch.float64)
        return players, self.exact(players, tree.to(self.constants, dtype=torch.float64))

    def flat(self, player: str) -> torch.Tensor:
        """The player's parameters in float64, as one vector [n_p]."""
        return tree.flatten(self.wide[0][player])

    def smooth(self, value: bool = False) -> VectorField:
        """The field whose derivatives are exact: singular vectors follow the weights they belong to. Of own
        losses, or of the zero-sum V (see `ValueGame`)."""
        game = ValueGame(self.game) if value and not self.game.zero_sum else self.game
        return VectorField(Exact(game))

    def linear_draws(self, part: str = "optimise") -> list[Draw]:
        """The float64 minibatches over which Jacobian products are averaged, `linear_batches` of them."""
        source = self.parts[part].to(dtype=torch.float64)
        where = list(self.parts).index(part)
        return [
            self.game.draw(
                Use.LINEAR.at(part=where, batch=k).generator(self.seed),
                source,
                self.settings.batch,
                torch.float64,
                self.device,
            )
            for k in range(self.settings.linear_batches)
        ]

    @property
    def unit(self) -> str:
        """The unit of the losses."""
        return self.game.formulation.unit

    def tolerance(self, per: str = "", player: str = "") -> Tolerance:
        """What is called nothing of a player's loss (by default the follower's); its value is not a number where there
        is no yardstick."""
        unit = self.unit
        if self.settings.absolute > 0:
            return Tolerance(self.settings.absolute, unit + per, "as set")
        scale = self.scale(player)
        if not 0 < scale < float("inf"):
            why = f"{self._yardstick(player)} is {scale:g} {unit}: set absolute to a gain that you call nothing"
            return Tolerance(float("nan"), unit + per, why)
        value, share = self.settings.tolerance * scale, self.settings.tolerance
        return Tolerance(
            value, unit + per, f"{share:.0%} of {self._yardstick(player)}, {scale:.4g} {unit}"
        )

    def _yardstick(self, player: str) -> str:
        """What the scale is, in words."""
        if not getattr(self.game, "own_scale", False):
            return "the formulation's scale"
        return f"what is at stake in the {player or order_of(self.game)[1]}'s loss"

    def losses(
        self, player: str, players: Players, constants: Constants, part: str
    ) -> torch.Tensor:
        """The player's loss on every batch of a bank, float64 [batches]."""
        return self.losses_on(player, players, constants, self.bank(part))

    def losses_on(
        self, player: str, players: Players, constants: Constants, draws: Sequence[Draw]
    ) -> torch.Tensor:
        """The player's loss on each of these draws, float64 [draws]."""
        wide = tree.to(players, dtype=torch.float64)
        fixed = self.exact(wide, tree.to(constants, dtype=torch.float64))
        with torch.no_grad():
            return torch.stack(
                # All terms, so that a loss before and after is the full loss and not a part of it.
                [self.game.losses(wide, fixed, draw)[player] for draw in draws]
            )

    def scale(self, player: str = "") -> float:
        """The yardstick of a player's loss (by default the follower's) at the trained pair, on the selection split."""
        who = player or order_of(self.game)[1]
        if who not in self._scales:
            self._scales[who] = self.game.yardstick(*self.wide, self.bank("select"), who)
        return self._scales[who]

    def scope(self) -> Json:
        """What every certificate of this context is about."""
        game = self.game
        return {
            "losses": "own losses" if not game.zero_sum else "V (zero-sum)",
            **_strategies(game),
            "penalties": "part of the critic's own loss" if game.penalties else "none",
            "critic_class": "weights divided by their exact largest singular value"
            if game.normalised
            else "; ".join(repr(p) for p in game.projections) or "all weights of this architecture",
            "sigma_in_training": self.lag,
            "search_precision": str(self.dtype).removeprefix("torch."),
            "score_precision": "float64",
            "iterate": self.iterate,
            **(
                {"noise": f"expectations over the noise of {', '.join(game.noise)}"}
                if game.noise
                else {}
            ),
            "data": f"{self.data.name}, in disjoint parts: half to optimise, a quarter each to select and to score",
        }


def _strategies(game: SampledGame) -> Json:
    """Of a mixture: deviations are from one mixture to another, and none gains more than a single network."""
    count = getattr(game, "particles", 1)
    if count == 1:
        return {}
    return {
        "strategies": f"mixed: {count} networks a player in equal shares, and so their deviations"
    }


def source_rows(source: Source, rows: torch.Tensor) -> torch.Tensor:
    """These samples of a finite source."""
    take = getattr(source, "take", None)
    samples: torch.Tensor = source.all()[rows] if take is None else take(rows)
    return samples


def norm_of(context: AuditContext, player: str) -> float:
    """|x|, or sqrt(n) where all of the player's parameters are zero: the size of a whole move."""
    x = tree.flatten(context.players[player]).double()
    size = float(x.norm())
    return size if size > 0 else float(len(x)) ** 0.5


def reach_of(context: AuditContext, player: str) -> float:
    """move * |x|: the length of a small move of the player."""
    return context.settings.move * norm_of(context, player)


def rows_in(draw: Draw) -> int:
    """How many samples a draw holds; 0 where losses are exact."""
    return max((len(entry) for entry in draw.values() if entry.ndim), default=0)


def tensor_scales(like: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Each tensor's root mean square, 0-d: the scale on which its entries move.

    A tensor below a millionth of the root mean square of all tensors together takes that one (a shift
    that trained to 1e-18 would otherwise be searched around by as little); 1 where all are zero.
    """
    overall = tree.flatten(like).square().mean().sqrt()
    overall = torch.where(overall > 0, overall, torch.ones_like(overall))
    own = {key: value.square().mean().sqrt() for key, value in like.items()}
    return {key: torch.where(rms > 1e-6 * overall, rms, overall) for key, rms in own.items()}


def relative_noise(
    like: dict[str, torch.Tensor], size: float, rng: np.random.Generator
) -> dict[str, torch.Tensor]:
    """Gaussian noise with standard deviation `size` times each tensor's scale (`tensor_scales`)."""
    return {
        key: size * scale * normal(rng, like[key].shape, like[key].dtype, like[key].device)
        for key, scale in tensor_scales(like).items()
    }


def _lag(game: SampledGame, players: Players, constants: Constants) -> float | None:
    """The largest effective norm under training's own power vectors (1 if they had converged)."""
    if not game.normalised:
        return None
    norms = [
        torch.linalg.matrix_norm(seen[k].double().flatten(1), 2)
        for head in range(getattr(game, "particles", 1))
        for seen in [game.critic(players, constants, head=head).params]
        for k in game.normalised
    ]
    return round(float(torch.stack(norms).max()), 4)
