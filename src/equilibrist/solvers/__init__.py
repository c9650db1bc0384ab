"""Solvers: one file each."""

from equilibrist.core.draws import Given
from equilibrist.solvers.alternating import Alternating
from equilibrist.solvers.anchored import AnchoredExtragradient
from equilibrist.solvers.averaged import Averaged
from equilibrist.solvers.base import (
    ByPlayer,
    Directed,
    DrawSource,
    Linear,
    Place,
    Rules,
    Solver,
    State,
    Step,
)
from equilibrist.solvers.competitive import Competitive
from equilibrist.solvers.consensus import Consensus
from equilibrist.solvers.extragradient import Extragradient, PastExtragradient
from equilibrist.solvers.implicit import Implicit
from equilibrist.solvers.lookahead import Lookahead
from equilibrist.solvers.mirror import MirrorGAN, MirrorProxGAN
from equilibrist.solvers.optimistic import Optimistic
from equilibrist.solvers.proximal import Proximal
from equilibrist.solvers.ridge import FollowTheRidge
from equilibrist.solvers.simultaneous import Simultaneous
from equilibrist.solvers.symplectic import SymplecticAdjustment
from equilibrist.solvers.trajectory import Trajectory, iterate
from equilibrist.solvers.unrolled import Unrolled

__all__ = [
    "Alternating",
    "AnchoredExtragradient",
    "Averaged",
    "ByPlayer",
    "Competitive",
    "Consensus",
    "Directed",
    "DrawSource",
    "Extragradient",
    "FollowTheRidge",
    "Given",
    "Implicit",
    "Linear",
    "Lookahead",
    "MirrorGAN",
    "MirrorProxGAN",
    "Optimistic",
    "PastExtragradient",
    "Place",
    "Proximal",
    "Rules",
    "Simultaneous",
    "Solver",
    "State",
    "Step",
    "SymplecticAdjustment",
    "Trajectory",
    "Unrolled",
    "iterate",
]
