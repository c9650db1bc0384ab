"""Mirror-GAN and Mirror-Prox-GAN (Hsieh, Liu and Cevher 2019): mixed strategies by Langevin dynamics."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from equilibrist import tree
from equilibrist.core.draws import Draw
from equilibrist.core.field import Evaluation, VectorField
from equilibrist.core.game import Constants, Players
from equilibrist.errors import GameError
from equilibrist.games.mixture import Mixture, PairedMixture
from equilibrist.langevin import SGLD, LangevinRule
from equilibrist.optimizers import Optimizer
from equilibrist.schedules import Schedule
from equilibrist.solvers.base import (
    DrawSource,
    Sizes,
    State,
    Step,
    check_names,
    flat_part,
    identity_like,
    in_parts,
    independent,
    measured,
)
from equilibrist.validation import at_least, is_number

Pairing = Literal["random", "mean", "all"]
PAIRINGS: tuple[Pairing, ...] = get_args(Pairing)


@dataclass(frozen=True)
class MirrorGAN:
    """Entropic mirror descent on measures, each step sampled by K Langevin steps against the frozen opponent:

        theta^0 = bar = theta_t;  k = 1..K:  theta^k = P(sampler(theta^{k-1}, v_theta(theta^{k-1}, w_t)))
                                             bar <- (1 - beta) bar + beta theta^k
        theta_{t+1} = (1 - beta) theta_t + beta bar

    and the critic likewise against theta_t, at the same time (Hsieh, Liu and Cevher 2019, the practical form of
    Algorithm 1). Every inner step has a minibatch and noise of its own.

    On a GAN the measure is summed up by its mean network, as the paper does it; with beta = 0.9 and K = 1 that is 81%
    the last sample. On a `Mixture` each player is a stack of particles that are moved by one computation and
    sampled from; each particle is a chain of its own with its own means.

    Args:
        sampler: `SGLD` or `RMSPropSGLD`. samplers: by player's name.
        inner: K. growth: K_t = floor(growth^t K), the outer step t = 0, 1, ...
        beta: damping, in (0, 1]; 1 takes the last sample.
        pace, heat: factors of the step size and of the noise at outer step t (`schedules.Piecewise`, ...).
        pairing: which opponent a particle of a `Mixture` plays. "random": each generator one critic, assigned again
            at every inner step, on its share of the minibatch: 1 gradient a particle. "mean": the other
            player's mean network: 1 gradient, of another game (the paper's own approximation). "all": every
            critic scores every sample: exact, and `particles` passes of the critic a sample.

    State: the rules', and t. Losses and gradient norms are those of the first inner step. On a GPU a
    schedule or growth waits for the device once an outer step.

    Raises:
        ValueError: K below 1, growth below 1, beta outside of (0, 1], an unknown pairing. GameError: a minibatch that
        cannot be shared out among the particles; "mean" where constants belong to the weights.
    """

    sampler: LangevinRule = field(default_factory=SGLD)
    samplers: dict[str, LangevinRule] = field(default_factory=dict)
    inner: int = 10
    beta: float = 0.9
    growth: float = 1.0
    pace: Schedule | None = None
    heat: Schedule | None = None
    pairing: Pairing = "random"

    def __post_init__(self) -> None:
        name = type(self).__name__
        for rule in (self.sampler, *self.samplers.values()):
            if isinstance(rule, type) or not hasattr(rule, "noise"):
                shown = rule.__name__ if isinstance(rule, type) else type(rule).__name__
                raise ValueError(
                    f"{name}.sampler={shown} has no noise: write SGLD(1e-3, 1e-2) or RMSPropSGLD(...)"
                )
        at_least(self, 1, inner=self.inner)
        if not is_number(self.beta) or not 0 < self.beta <= 1:
            raise ValueError(f"{name}.beta must lie in (0, 1], not {self.beta!r}")
        if not is_number(self.growth) or not 1 <= self.growth < math.inf:
            raise ValueError(f"{name}.growth must be at least 1 and finite, not {self.growth!r}")
        for which in ("pace", "heat"):
            schedule = getattr(self, which)
            if isinstance(schedule, type) or not (schedule is None or callable(schedule)):
                raise ValueError(f"{name}.{which} must be Cosine(...), say, not {schedule!r}")
        if self.pairing not in PAIRINGS:
            raise ValueError(f"{name}.pairing must be {', '.join(PAIRINGS)}, not {self.pairing!r}")

    def __str__(self) -> str:
        named = "".join(f", {player}: {rule}" for player, rule in self.samplers.items())
        grown = f" times {self.growth:g}^t" if self.growth > 1 else ""
        paced = f", step size by {self.pace}" if self.pace is not None else ""
        heated = f", noise by {self.heat}" if self.heat is not None else ""
        return (
            f"{self._name}: {self.inner}{grown} inner steps, beta {self.beta:g}{paced}{heated} (particles: "
            f"pairing {self.pairing}); {self.sampler}{named}"
        )

    _name = "Mirror-GAN"

    def sampler_of(self, player: str) -> LangevinRule:
        """The Langevin rule of this player."""
        return self.samplers.get(player, self.sampler)

    def rule(self, player: str) -> Optimizer:
        """The same without noise: an update rule, for what has no business with noise."""
        return self.sampler_of(player).cold

    def init(self, players: Players) -> State:
        check_names(self.samplers, players)
        device = tree.leaves(players)[0].device
        return {
            "rules": {p: self.sampler_of(p).init(part) for p, part in players.items()},
            "t": torch.zeros((), dtype=torch.int64, device=device),
        }

    def step(
        self,
        field: VectorField,
        players: Players,
        constants: Constants,
        state: State,
        draws: DrawSource,
    ) -> Step:
        start = tree.clone(players)
        count = self._count(state)
        taken = self._sampled(field, start, start, constants, state, draws, 0, count)
        return self._counted(taken)

    def linear_map(self, jacobian: Tensor, sizes: Sizes) -> Tensor:
        """With noise-free SGLD and neither schedules nor growth: X_0 = B_0 = I, X_k = (I - H D) X_{k-1} - H O,
        B_k = (1 - beta) B_{k-1} + beta X_k, and (1 - beta) I + beta B_K; D, O the blocks of J on and off the diagonal.
        """
        return self._linear(jacobian, sizes, identity_like(jacobian))

    def _linear(self, jacobian: Tensor, sizes: Sizes, against: Tensor) -> Tensor:
        """The same with the opponents at `against` times x."""
        rates, own = [], torch.zeros_like(jacobian)
        for player, part in tree.slices(sizes).items():
            rule = self.sampler_of(player)
            if not isinstance(rule, SGLD) or rule.noise or rule.convention != "langevin":
                raise ValueError(f"linear_map is that of SGLD without noise, not of {rule}")
            rates.append(torch.full((sizes[player],), rule.lr, dtype=jacobian.dtype))
            own[part, part] = jacobian[part, part]
        if self.pace is not None or self.growth > 1:
            raise ValueError("linear_map is that of one step size and one number of inner steps")
        step, unit = torch.cat(rates)[:, None], identity_like(jacobian)
        x = bar = unit
        for _ in range(self.inner):
            x = x - step * (own @ x + (jacobian - own) @ against)
            bar = torch.lerp(bar, x, self.beta)
        return torch.lerp(unit, bar, self.beta)

    # -- the sampler ------------------------------------------------------------------------------

    def _count(self, state: State) -> int:
        if self.growth == 1:
            return self.inner
        return math.floor(float(self.growth ** float(state["t"].max())) * self.inner)

    def _counted(self, taken: Step) -> Step:
        return taken._replace(state={**taken.state, "t": taken.state["t"] + 1})

    def _factor(self, schedule: Schedule | None, state: State) -> float:
        return 1.0 if schedule is None else float(schedule(state["t"].max().double()))

    def _sampled(
        self,
        field: VectorField,
        start: Players,
        against: Players,
        constants: Constants,
        state: State,
        draws: DrawSource,
        first: int,
        count: int,
    ) -> Step:
        """`count` Langevin steps of every player from `start`, the opponents frozen at `against`; minibatches from
        number `first` on. Returns the damped means."""
        playing = self._playing(field)
        shared = playing is not field
        particles = field.game.particles if isinstance(field.game, Mixture) else 1
        # Once for all inner steps: a GPU is waited for.
        scales = self._factor(self.pace, state), self._factor(self.heat, state)
        chain, bar = tree.clone(start), tree.clone(start)
        info: dict[str, Any] = {}
        opposing = constants
        for k in range(count):
            draw = independent(draws, first + k) if first + k else draws.batch(0)
            if shared:
                _divisible(draw, particles)
            if not k:  # the opponents' constants belong to their weights, not to the chain's
                opposing = playing.refresh(against, constants, draw)
            constants = playing.refresh(chain, constants, draw)
            normals = self._normals(draws, chain, field.stacked, first + k)
            dealt = self._dealt(draws, particles, first + k) if shared else None
            found, losses = self._evaluated(
                playing, (chain, constants), (against, opposing), draw, dealt
            )
            if particles > 1:  # a loss is a mean over particles; each follows its own
                found = tree.fill(found, torch._foreach_mul(tree.leaves(found), float(particles)))
            if not k:
                info = measured(field, found, losses)
            with torch.no_grad():
                chain = self._moved(field, chain, found, normals, state["rules"], scales)
                torch._foreach_lerp_(tree.leaves(bar), tree.leaves(chain), self.beta)
        with torch.no_grad():
            ends = torch._foreach_lerp(tree.leaves(start), tree.leaves(bar), self.beta)
            moved = field.project(tree.fill(start, ends))
        return Step(moved, constants, state, info)

    def _playing(self, field: VectorField) -> VectorField:
        """The field that is followed: `field` itself, or that of the paired particles of a mixture."""
        game = field.game
        if not isinstance(game, Mixture) or self.pairing == "all":
            return field
        if field.parts > 1:
            raise GameError(
                f"pairing={self.pairing!r} cannot take a minibatch in parts: leave accumulate at 1, or take "
                "pairing='all'"
            )
        if field.stacked:
            raise GameError(
                "an ensemble of mixtures cannot pair their particles: train its seeds one by one, or take pairing='all'"
            )
        return field.of(PairedMixture(game))

    def _evaluated(
        self,
        playing: VectorField,
        own: tuple[Players, Constants],
        opposing: tuple[Players, Constants],
        draw: Draw,
        dealt: Tensor | None,
    ) -> Evaluation:
        """Each player's gradient and loss at its own place, the others at that of the opponents."""
        found: Players = {}
        losses: dict[str, Tensor] = {}
        game: Any = playing.game
        names = game.players
        for player in names:
            facing, fixed = (
                {p: (mine if p == player else theirs)[p] for p in names}
                for mine, theirs in zip(own, opposing, strict=True)
            )
            if dealt is not None:
                facing, fixed = self._facing(facing, fixed, player, dealt, game.game)
            v, seen = playing(facing, fixed, draw, only=player)
            found[player], losses[player] = v[player], seen[player]
        return Evaluation(found, losses)

    def _moved(
        self,
        field: VectorField,
        chain: Players,
        v: Players,
        normals: Players,
        memory: State,
        scales: tuple[float, float],
    ) -> Players:
        """One Langevin step of every player, in place, then the projection; `scales` of step size and noise."""
        for player, part in chain.items():
            # A user's own rules need not know of sets that couple parameters.
            tied = field.coupled[player]
            also: Any = {} if tied == () else {"coupled": tied, "members": field.stacked}
            self.sampler_of(player).update(
                v[player], memory[player], part, normals[player], *scales, **also
            )
        return field.project(chain)

    def _normals(
        self, draws: DrawSource, chain: Players, members: int | None, index: int
    ) -> Players:
        """Noise for every parameter, drawn a player at a time."""
        flat = {
            player: {"all": torch.empty_like(flat_part(part, members))}
            for player, part in chain.items()
        }
        drawn = draws.noise(flat, index)
        return {p: in_parts(drawn[p]["all"], part, members) for p, part in chain.items()}

    def _dealt(self, draws: DrawSource, particles: int, index: int) -> Tensor | None:
        """Which opponent each particle meets: a random permutation, from the step's own noise."""
        if self.pairing != "random":
            return torch.zeros(0, dtype=torch.int64)
        keys = {"pairs": {"keys": torch.zeros(particles, dtype=torch.float64)}}
        return torch.argsort(draws.noise(keys, 2**20 + index)["pairs"]["keys"])

    def _facing(
        self,
        facing: Players,
        constants: Constants,
        player: str,
        dealt: Tensor,
        game: Mixture,
    ) -> tuple[Players, Constants]:
        """The stacks with the opponents of `player` in the order in which they are met."""
        (other,) = (p for p in game.players if p != player)
        if self.pairing == "random":
            # Generator i meets critic dealt[i], so critic j meets the generator i with dealt[i] = j.
            order = dealt if player == "generator" else torch.argsort(dealt)
            order = order.to(tree.leaves(facing)[0].device)
            # One kernel, not one a tensor.
            ordered = flat_part(facing[other], game.particles)[order]
            placed = {**facing, other: in_parts(ordered, facing[other], game.particles)}
            return placed, {**constants, other: tree.map(lambda t: t[order], constants[other])}
        if constants[other] or game.normalised:
            raise GameError(
                "pairing='mean' averages weights, but the networks hold buffers or power vectors too: take "
                "pairing='random'"
            )
        arrange = lambda t: t.mean(0, keepdim=True).expand_as(t)  # noqa: E731
        placed = {**facing, other: tree.map(arrange, facing[other])}
        fixed = {**constants, other: tree.map(arrange, constants[other])}
        return placed, fixed


@dataclass(frozen=True)
class MirrorProxGAN(MirrorGAN):
    """Mirror-prox on measures: the sampler of `MirrorGAN` twice a step (Hsieh, Liu and Cevher 2019).

    First from (theta_t, w_t) against (theta_t, w_t), which gives the half step; then from (theta_t, w_t)
    again, against the half step. Twice the gradients, minibatches and noise of their own in both; the rules' moments of
    the first run are dropped. Arguments, state, errors and measurements as in `MirrorGAN`.
    """

    _name = "Mirror-Prox-GAN"

    def step(
        self,
        field: VectorField,
        players: Players,
        constants: Constants,
        state: State,
        draws: DrawSource,
    ) -> Step:
        start, count = tree.clone(players), self._count(state)
        trial = {**state, "rules": tree.clone(state["rules"])}
        half = self._sampled(field, start, start, constants, trial, draws, 0, count)
        taken = self._sampled(
            field, start, half.players, half.constants, state, draws, count, count
        )
        return self._counted(taken._replace(info=half.info))

    def linear_map(self, jacobian: Tensor, sizes: Sizes) -> Tensor:
        """That of `MirrorGAN` with the opponents at its own image."""
        half = super().linear_map(jacobian, sizes)
        return self._linear(jacobian, sizes, half)


def _divisible(draw: Mapping[str, Tensor], particles: int) -> None:
    size = len(draw["real"])
    if size % particles or size < particles:
        raise GameError(
            f"a minibatch of {size} cannot be shared out among {particles} pairs: take batch="
            f"{particles * max(1, round(size / particles))}, or pairing='all'"
        )
