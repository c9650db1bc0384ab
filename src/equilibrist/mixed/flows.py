"""How two measures play against each other: mirror steps on densities, moves and weights of particles."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from equilibrist.core.draws import Stream, generator, normal
from equilibrist.mixed.domains import Domain
from equilibrist.mixed.measures import Density, DensityAverage, Measure, Particles, Reservoir
from equilibrist.mixed.mirror import record_times
from equilibrist.mixed.payoff import PayoffGame, Role, opponents
from equilibrist.progress import showing
from equilibrist.validation import not_negative, positive

Convention = Literal["gamma", "welling-teh"]


@dataclass(frozen=True, eq=False)
class FlowTrace:
    """What a run leaves. Gaps are `NashGap.total` (lower bounds where best responses are searched).

    Attributes:
        times: after how many steps, int64 [records].
        gap_average, gap_last: of the average of what was played so far, and of the newest pair [records].
        average, last: (nu, mu) at the end.
        exact: whether all gaps come from exact best responses.
        gap_entropic: of the newest pair, for the payoff with entropy [records]; None without a temperature.
    """

    times: Tensor
    gap_average: Tensor
    gap_last: Tensor
    average: tuple[Measure, Measure]
    last: tuple[Measure, Measure]
    exact: bool
    gap_entropic: Tensor | None = None


class _Records:
    """Gaps along a run, at the recorded times."""

    def __init__(
        self, game: PayoffGame, steps: int, record: int | Sequence[int] | None, nodes: int
    ) -> None:
        if steps < 1:
            raise ValueError(f"a run needs at least one step, not {steps!r}")
        self.game, self.nodes = game, nodes
        none = isinstance(record, Sequence) and not record
        self.times = [] if none else record_times(steps, record)
        self.due = set(self.times)
        self.rows: list[tuple[float, float, float]] = []
        self.exact = True

    def add(
        self, average: tuple[Measure, Measure], last: tuple[Measure, Measure], entropic: float = 0.0
    ) -> dict[str, float]:
        mean = self.game.gap(*average, nodes=self.nodes)
        newest = self.game.gap(*last, nodes=self.nodes)
        self.exact = self.exact and mean.exact and newest.exact
        self.rows.append((mean.total, newest.total, entropic))
        return {"gap of average": mean.total, "gap of last": newest.total}

    def trace(
        self, average: tuple[Measure, Measure], last: tuple[Measure, Measure], entropic: bool
    ) -> FlowTrace:
        rows = torch.tensor(self.rows, dtype=torch.float64).reshape(-1, 3)
        times = torch.tensor(self.times, dtype=torch.int64)
        own = rows[:, 2] if entropic else None
        return FlowTrace(times, rows[:, 0], rows[:, 1], average, last, self.exact, own)


# -- densities on grids -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class GridDescent:
    """Entropic mirror descent, both players at once:

        nu+ = MD_eta(nu, f(., mu)),   mu+ = MD_eta(mu, -f(nu, .)),
        MD_eta(rho, h) proportional to (rho e^{-eta h})^{1 / (1 + eta tau)}

    With temperature tau = 0 that is Algorithm 1 of Hsieh, Liu and Cevher 2019: the average of the iterates, the first
    included, converges, the last iterate circles. With tau > 0 it is descent on f(nu, mu) - tau H(nu) + tau H(mu)
    with the entropy taken implicitly (magnetic mirror descent: Sokota et al. 2023); its fixed point is the
    entropic equilibrium

        nu prop. to e^{-f(., mu) / tau},   mu prop. to e^{f(nu, .) / tau}

    and for eta <= tau / L^2, L = `smoothness`, each step shrinks KL(nu* || nu) + KL(mu* || mu) by 1 / (1 + eta tau).

    Args:
        eta: the step.
        temperature: tau.

    Raises:
        ValueError: a step that is not positive, a negative temperature.
    """

    eta: float = 0.1
    temperature: float = 0.0

    def __post_init__(self) -> None:
        positive(self, eta=self.eta)
        not_negative(self, temperature=self.temperature)

    def run(
        self,
        game: PayoffGame,
        steps: int,
        *,
        nodes: int = 64,
        start: tuple[Density, Density] | None = None,
        record: int | Sequence[int] | None = None,
        progress: str = "none",
    ) -> FlowTrace:
        """`steps` steps from `start` (None: uniform on grids with `nodes` nodes along each dimension).

        `record` has the times at which gaps are taken, or about how many (None: ten a decade), evenly spaced on a log
        scale, the end included; () for none.
        """
        if start is None:
            start = (
                Density.uniform(game.x_domain.grid(nodes)),
                Density.uniform(game.y_domain.grid(nodes)),
            )
        nu, mu = start
        payoffs = game.matrix(nu.points, mu.points)
        records = _Records(game, steps, record, nodes)
        means = DensityAverage(), DensityAverage()
        with showing(progress, type(self).__name__, steps) as bar:
            for t in range(1, steps + 1):
                (nu, mu), played = self._advance(nu, mu, payoffs)
                for mean, density in zip(means, played, strict=True):
                    mean.add(density)
                if t in records.due:
                    own = game.entropic_gap(nu, mu, self.temperature) if self.temperature else 0.0
                    average = means[0].value, means[1].value
                    bar.update(t, records.add(average, (nu, mu), own))
        return records.trace((means[0].value, means[1].value), (nu, mu), self.temperature > 0)

    def _advance(
        self, nu: Density, mu: Density, payoffs: Tensor
    ) -> tuple[tuple[Density, Density], tuple[Density, Density]]:
        """(the next pair, the pair that the average takes)."""
        return self._tilted(nu, mu, payoffs, (nu, mu)), (nu, mu)

    def _tilted(
        self, nu: Density, mu: Density, payoffs: Tensor, against: tuple[Density, Density]
    ) -> tuple[Density, Density]:
        """(nu, mu) after a step along the payoffs at `against`."""
        x, y = payoffs @ against[1].masses, against[0].masses @ payoffs
        return (
            nu.tilted(x, self.eta, self.temperature),
            mu.tilted(-y, self.eta, self.temperature),
        )


@dataclass(frozen=True)
class GridProx(GridDescent):
    """Entropic mirror-prox: a half-step of `GridDescent` to (nu', mu'), then the step from (nu, mu) along the payoffs
    found there. The average is that of the half-steps (Nemirovski 2004; Algorithm 2 of Hsieh, Liu and Cevher 2019).

    For eta <= 1/L, L = `smoothness`: at temperature 0 the average's gap over the nodes is at most

        (log 1 / min_i nu_1(x_i) + log 1 / min_j mu_1(y_j)) / (eta T)    (masses of the start's nodes),

    and at temperature tau each step shrinks KL(nu* || nu) + KL(mu* || mu) by 1 / (1 + eta tau), however small tau is.
    Two evaluations of the payoffs a step.
    """

    def _advance(
        self, nu: Density, mu: Density, payoffs: Tensor
    ) -> tuple[tuple[Density, Density], tuple[Density, Density]]:
        half = self._tilted(nu, mu, payoffs, (nu, mu))
        return self._tilted(nu, mu, payoffs, half), half


# -- particles --------------------------------------------------------------------------------------------


class _Turn(NamedTuple):
    """One player's turn: what it has, what it meets, and its random numbers."""

    game: PayoffGame
    role: Role
    own: Particles
    other: Particles
    pairing: int | None
    rng: np.random.Generator

    def faced(self) -> Tensor | None:
        """The opponents of each particle, drawn again; None for all of them."""
        if not self.pairing:
            return None
        return opponents(self.other, len(self.own.points), self.pairing, self.rng)

    def descended(self) -> Tensor:
        """What the player descends, at its points [N]: f(x, mu) for x, -f(nu, y) for y."""
        points, faced = self.own.points, self.faced()
        if self.role == "x":
            return self.game.against_mu(points, self.other, faced)
        return -self.game.against_nu(points, self.other, faced)


class _OnParticles(ABC):
    """One loop for all particle methods: both players read the same pair, then both change."""

    # Many parameters, each an option of one call by its name: a game and a length are all that is needed.
    def run(
        self,
        game: PayoffGame,
        steps: int,
        *,
        particles: int = 256,
        start: tuple[Particles, Particles] | None = None,
        pairing: int | None = None,
        keep: int | None = None,
        nodes: int = 64,
        record: int | Sequence[int] | None = None,
        seed: int = 0,
        progress: str = "none",
    ) -> FlowTrace:
        """`steps` steps from `start` (None: `particles` independent points each, of the domains' own laws).

        All pairs are evaluated at once; with `pairing` = k each particle meets k opponents instead, drawn again
        at every step in proportion to weight: unbiased, and linear in the number of particles. The average over time
        is a `Reservoir` of `keep` particles (None: as many as play), whose own error is of order keep^{-1/2}.
        `record` as in `GridDescent.run`; gaps take all pairs.
        """
        if pairing is not None and pairing < 1:
            raise ValueError(
                f"run: pairing must be at least 1 opponent, or None for all, not {pairing!r}"
            )
        if start is None:
            laws = (game.x_domain, game.y_domain)
            nu, mu = (
                Particles(law.sample(particles, generator(seed, Stream.INIT, index=i)))
                for i, law in enumerate(laws)
            )
        else:
            nu, mu = start
        records = _Records(game, steps, record, nodes)
        means = [Reservoir(keep or len(measure.points)) for measure in (nu, mu)]
        with showing(progress, type(self).__name__, steps) as bar:
            for t in range(1, steps + 1):
                draws = [generator(seed, Stream.NOISE, t, index=i) for i in range(2)]
                for mean, measure, rng in zip(means, (nu, mu), draws, strict=True):
                    mean.add(measure, rng, self._weight(t))
                x_meets, y_meets = self._met(mu, means[1]), self._met(nu, means[0])
                nu, mu = (
                    self._moved(_Turn(game, "x", nu, x_meets, pairing, draws[0])),
                    self._moved(_Turn(game, "y", mu, y_meets, pairing, draws[1])),
                )
                if t in records.due:
                    average = means[0].value, means[1].value
                    bar.update(t, records.add(average, (nu, mu)))
        return records.trace((means[0].value, means[1].value), (nu, mu), False)

    def _weight(self, t: int) -> float:
        """How much step t = 1, 2, ... counts in the average over time."""
        return 1.0

    def _met(self, now: Particles, average: Reservoir) -> Particles:
        """What the other player plays against."""
        return now

    @abstractmethod
    def _moved(self, turn: _Turn) -> Particles:
        """One player's particles after the step."""


@dataclass(frozen=True)
class Reweighting(_OnParticles):
    """log w_i <- log w_i -+ eta f(x_i, .): entropic mirror descent on the weights, the points stay where they are.

    The same as `GridDescent` on a random grid; what no particle of the start holds is never found.

    Args:
        eta: the step.

    Raises:
        ValueError: a step that is not positive.
    """

    eta: float = 0.1

    def __post_init__(self) -> None:
        positive(self, eta=self.eta)

    def _moved(self, turn: _Turn) -> Particles:
        return turn.own.reweighted(turn.descended(), self.eta)


@dataclass(frozen=True)
class Langevin(_OnParticles):
    """Langevin descent-ascent: particles of equal or given weight, moved by gradient and noise,

        x <- x - gamma grad h(x) + sqrt(2 gamma) eps N(0, I),    h = f(., mu) for x, -f(nu, .) for y,

    in the domain (`Domain.move`). Its law has temperature eps^2: as gamma falls, stationary measures tend to the
    entropic equilibrium of temperature eps^2 (Domingo-Enrich et al. 2020); eps = 0 is gradient descent-ascent on
    particles. In the Welling-Teh convention the step is x - (gamma / 2) grad h + sqrt(gamma) eps N (Welling and Teh
    2011): the same temperature, half the step, so another bias at the same gamma. On h = a x^2 / 2 the stationary
    variance is eps^2 / (a (1 - a gamma / 2)), respectively eps^2 / (a (1 - a gamma / 4)).

    Args:
        gamma: the step.
        noise: eps.
        convention: "gamma" or "welling-teh".

    Raises:
        ValueError: a step that is not positive, negative noise, another convention.
    """

    gamma: float = 0.01
    noise: float = 0.1
    convention: Convention = "gamma"

    def __post_init__(self) -> None:
        positive(self, gamma=self.gamma)
        not_negative(self, noise=self.noise)
        if self.convention not in ("gamma", "welling-teh"):
            raise ValueError(
                f'{type(self).__name__}.convention must be "gamma" or "welling-teh", not {self.convention!r}'
            )

    @property
    def temperature(self) -> float:
        """eps^2, whatever the convention."""
        return self.noise**2

    def _moved(self, turn: _Turn) -> Particles:
        return Particles(self._points(turn), turn.own.log_weights)

    def _points(self, turn: _Turn) -> Tensor:
        gamma = self.gamma if self.convention == "gamma" else self.gamma / 2
        game, points = turn.game, turn.own.points
        sign = -1.0 if turn.role == "x" else 1.0
        direction = sign * gamma * game.gradient(turn.role, points, turn.other, turn.faced())
        domain: Domain = game.x_domain if turn.role == "x" else game.y_domain
        if self.noise == 0:
            return domain.move(points, direction)
        drawn = normal(turn.rng, points.shape, points.dtype, points.device)
        return domain.move(points, direction, math.sqrt(2 * gamma) * self.noise * drawn)


@dataclass(frozen=True)
class WassersteinFisherRao(Langevin):
    """Both: particles move as in `Langevin` and are reweighted as in `Reweighting`, from one pair (with eps = 0 the
    gradient flow in the Wasserstein-Fisher-Rao geometry: Domingo-Enrich et al. 2020). Weights let mass jump to
    where moves would carry it only slowly.

    With noise the moves follow the entropy and the weights do not, so the stationary law is not the entropic
    equilibrium. Where `effective_size` falls below `resample` times the number of particles, they are
    resampled systematically.

    Args:
        gamma, noise, convention: as for `Langevin`.
        eta: the step of the weights.
        resample: share of the particles, from 0 (never) to 1.

    Raises:
        ValueError: as for `Langevin`; steps that are not positive, a share outside [0, 1].
    """

    noise: float = 0.0
    eta: float = 0.1
    resample: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, eta=self.eta)
        if not 0 <= self.resample <= 1:
            raise ValueError(
                f"WassersteinFisherRao.resample must lie between 0 and 1, not {self.resample!r}"
            )

    def _moved(self, turn: _Turn) -> Particles:
        h, points = turn.descended(), self._points(turn)
        moved = Particles(points, turn.own.log_weights).reweighted(h, self.eta)
        if moved.effective_size < self.resample * len(points):
            return moved.resampled(turn.rng)
        return moved
