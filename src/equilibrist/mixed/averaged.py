"""Langevin steps of particles against the opponent's average over time."""

from __future__ import annotations

import math
from dataclasses import dataclass

from equilibrist.mixed.flows import Langevin
from equilibrist.mixed.measures import Particles, Reservoir
from equilibrist.validation import not_negative


@dataclass(frozen=True)
class AveragedLangevin(Langevin):
    """`Langevin` against the opponent's past instead of its present, the mean-field Langevin averaged gradient (MFL-AG)
    of Kim, Yamamoto, Oko, Yang and Suzuki 2024 (arXiv:2312.01127):

        x <- x - gamma sum_{j <= t} b_j grad h_j(x) / sum_{j <= t} b_j + sqrt(2 gamma) eps N(0, I),    b_j = j^power,

    h_j = f(., mu_j) for x and -f(nu_j, .) for y, the measures of step j = 1 (the start), 2, ..., t. The gradients of
    all past h_j are averaged where the particle is now, not where it was then: f being linear in each measure, that is
    the gradient against the opponent's average over time. The same weighted averages of the play, `FlowTrace.average`,
    tend to the entropic equilibrium of temperature eps^2, also at steps at which plain Langevin goes round it in
    growing circles; the price is a long memory: play settles by a power of t, after large swings where the
    interaction is strong.

    In place of all past particles stands the `Reservoir` of `keep` particles that `run` has anyway: memory does not
    grow, and the gradient is unbiased given the past. A slot is replaced with probability (power + 1) / t or so, hence
    the error, of order keep^{-1/2}, is hardly averaged out over time: let `keep` be no smaller than `particles`.

    Args:
        gamma, noise, convention: as for `Langevin`.
        power: 0 counts all steps alike; larger ones forget the start faster.

    Raises:
        ValueError: as for `Langevin`; a negative power.

    Examples:
        >>> from equilibrist.mixed import AveragedLangevin, squared_distance_game
        >>> flow = AveragedLangevin(0.02, 0.5, power=1.0)
        >>> trace = flow.run(squared_distance_game(), 200, particles=300, record=())
        >>> abs(float(trace.average[0].points.mean()) - 0.5) < 0.1
        True
    """

    power: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        not_negative(self, power=self.power)

    def _weight(self, t: int) -> float:
        return math.pow(t, self.power)

    def _met(self, now: Particles, average: Reservoir) -> Particles:
        return average.value
