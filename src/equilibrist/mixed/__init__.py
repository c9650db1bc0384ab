"""Games whose strategies are probability measures: finite ones, and continuous ones on grids and by particles."""

from equilibrist.mixed.averaged import AveragedLangevin
from equilibrist.mixed.domains import Box, Circle, Domain, Grid, Projected, Space, Sphere
from equilibrist.mixed.flows import (
    FlowTrace,
    GridDescent,
    GridProx,
    Langevin,
    Reweighting,
    WassersteinFisherRao,
)
from equilibrist.mixed.matrix import (
    MatrixGame,
    Solution,
    from_gambit,
    from_nashpy,
    to_gambit,
    to_nashpy,
)
from equilibrist.mixed.measures import Density, DensityAverage, Particles, Reservoir
from equilibrist.mixed.mirror import MirrorDescent, MirrorProx, OptimisticMirror, Trace
from equilibrist.mixed.payoff import NashGap, PayoffGame, Reply
from equilibrist.mixed.truths import (
    circle_game,
    squared_distance_entropic,
    squared_distance_equilibrium,
    squared_distance_game,
    von_mises,
    von_mises_step,
)
from equilibrist.mixed.w2gan import Critics, Generators, MixedW2Gaussian, Response

__all__ = [
    "AveragedLangevin",
    "Box",
    "Circle",
    "Critics",
    "Density",
    "DensityAverage",
    "Domain",
    "FlowTrace",
    "Generators",
    "Grid",
    "GridDescent",
    "GridProx",
    "Langevin",
    "MatrixGame",
    "MirrorDescent",
    "MirrorProx",
    "MixedW2Gaussian",
    "NashGap",
    "OptimisticMirror",
    "Particles",
    "PayoffGame",
    "Projected",
    "Reply",
    "Reservoir",
    "Response",
    "Reweighting",
    "Solution",
    "Space",
    "Sphere",
    "Trace",
    "WassersteinFisherRao",
    "circle_game",
    "from_gambit",
    "from_nashpy",
    "squared_distance_entropic",
    "squared_distance_equilibrium",
    "squared_distance_game",
    "to_gambit",
    "to_nashpy",
    "von_mises",
    "von_mises_step",
]
