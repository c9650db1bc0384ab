"""Averages of players around any solver: exponential, uniform, or of a tail."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from equilibrist import tree
from equilibrist.core.field import VectorField
from equilibrist.core.game import Constants, Players
from equilibrist.solvers.base import DrawSource, Solver, State, Step
from equilibrist.validation import at_least, is_number

Kind = Literal["exponential", "uniform", "tail"]
KINDS: tuple[Kind, ...] = get_args(Kind)
_DECAY = 0.999


@dataclass(frozen=True, repr=False)
class Averaged:
    """The solver's own step, then an average a of its iterates x_0 (the initial weights), x_1, ..., x_k:

        exponential  a <- decay a + (1 - decay) x_k, from a = x_0
        uniform      a = (x_0 + ... + x_k) / (k + 1)
        tail         a = (x_s + ... + x_k) / (k - s + 1), s = `start`; a = x_k before it

    for the players named. The averages follow training and never act on it. They lie in the state, under
    "average": a run samples from them, and an audit looks at them, unless the last iterate is asked for.

    Exponential averages are those that GANs are sampled from; uniform ones are what the theory of convex-concave
    games speaks of (both: Yazici et al. 2019). On a bilinear game alternating steps circle for ever, and their
    uniform average comes to rest at the equilibrium like 1/k. It also remembers the initial weights for that long: a
    tail forgets them (Polyak and Juditsky 1992 average all; alpha-suffix averaging of Rakhlin, Shamir and
    Sridharan 2012 is the tail from start = (1 - alpha) steps).

    Uniform and tail are running means, in place and with compensated rounding (Kahan 1965), for which a second copy
    of the averaged players is kept: after many steps a gain is below the last digit of the mean, and would be lost.

    Args:
        solver: the method.
        decay: exponential alone: the share of the old average; its memory is about 1 / (1 - decay) steps.
        players: whose averages are kept.
        kind: "exponential", "uniform" or "tail".
        start: tail alone: the first step whose iterate counts, 1 or more. 1 is uniform without the initial weights.

    Raises:
        ValueError: an unknown kind, a decay outside of [0, 1), a tail without start, a decay or start of a
        kind that has none.
    """

    solver: Solver
    decay: float = _DECAY
    players: tuple[str, ...] = ("generator",)
    kind: Kind = "exponential"
    start: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.solver, type) or not hasattr(self.solver, "step"):
            raise ValueError(
                f"Averaged needs a solver, not {self.solver!r}: write Averaged(Alternating(), 0.999)"
            )
        if not isinstance(self.players, tuple) or not self.players:
            raise ValueError(
                f"Averaged.players must be a tuple of names such as ('generator',), not {self.players!r}"
            )
        if self.kind not in KINDS:
            raise ValueError(f"Averaged.kind must be one of {', '.join(KINDS)}, not {self.kind!r}")
        if not is_number(self.decay) or not 0 <= self.decay < 1:
            raise ValueError(f"Averaged.decay must lie in [0, 1), not {self.decay!r}")
        if self.kind != "exponential" and self.decay != _DECAY:
            raise ValueError(
                f"Averaged.decay={self.decay:g} belongs to kind='exponential': the {self.kind} average has none"
            )
        at_least(self, 0, start=self.start)
        if self.kind == "tail" and not self.start:
            raise ValueError(
                "Averaged.start is needed for kind='tail': the first step whose iterate counts, 1 or more"
            )
        if self.kind != "tail" and self.start:
            raise ValueError(
                f"Averaged.start={self.start} belongs to kind='tail': the {self.kind} average begins at step 0"
            )

    def __repr__(self) -> str:
        """As the constructor takes it, without what this kind does not have."""
        own = {
            "exponential": f"decay={self.decay!r}, players={self.players!r}",
            "uniform": f"players={self.players!r}, kind='uniform'",
            "tail": f"players={self.players!r}, kind='tail', start={self.start!r}",
        }[self.kind]
        return f"Averaged(solver={self.solver!r}, {own})"

    def __str__(self) -> str:
        decay = f", decay {self.decay:g}" if self.kind == "exponential" else ""
        return f"{self.solver}; {self.describe_average()}{decay}"

    def describe_average(self, step: int | None = None) -> str:
        """Which average this is, in words: "uniform average of the generator". With the step of a run it also says
        where a tail has not started, so that its average is the last iterate."""
        text = f"{self.kind} average of the {' and '.join(self.players)}"
        if self.kind != "tail":
            return text
        early = ", which it has not reached" if step is not None and step < self.start else ""
        return f"{text} from step {self.start:,} on{early}"

    def init(self, players: Players) -> State:
        if unknown := [p for p in self.players if p not in players]:
            raise ValueError(
                f"Averaged.players names {unknown[0]!r}, but the players are {', '.join(players)}"
            )
        average = tree.clone({p: players[p] for p in self.players})
        state: State = {"solver": self.solver.init(players), "average": average}
        if self.kind != "exponential":
            device = tree.leaves(average)[0].device
            state["rest"] = tree.zeros_like(average)
            state["count"] = torch.zeros((), dtype=torch.int64, device=device)
        return state

    def step(
        self,
        field: VectorField,
        players: Players,
        constants: Constants,
        state: State,
        draws: DrawSource,
    ) -> Step:
        taken = self.solver.step(field, players, constants, state["solver"], draws)
        after = {**state, "solver": taken.state}
        with torch.no_grad():
            kept = tree.leaves(state["average"])
            fresh = tree.leaves({p: taken.players[p] for p in self.players})
            if self.kind == "exponential":
                torch._foreach_lerp_(kept, fresh, 1 - self.decay)
            else:
                after["count"] = state["count"] + 1
                before = (after["count"] - self.start).clamp_min(0)
                _take_in(kept, tree.leaves(state["rest"]), fresh, before)
        return Step(taken.players, taken.constants, after, taken.info)


def _take_in(mean: list[Tensor], rest: list[Tensor], fresh: list[Tensor], count: Tensor) -> None:
    """mean + rest <- (count (mean + rest) + fresh) / (count + 1), in place; `rest` is what rounding took from
    `mean`. A count of zero forgets both, exactly, without a branch on a tensor, for which a GPU would wait."""
    dtype = mean[0].dtype
    weight = torch.reciprocal((count + 1).to(dtype))
    torch._foreach_mul_(mean, (count > 0).to(dtype))
    gain = torch._foreach_sub(fresh, mean)
    torch._foreach_lerp_(rest, gain, [weight.to(g.dtype) for g in gain])
    after = torch._foreach_add(mean, rest)
    torch._foreach_sub_(mean, after)
    torch._foreach_add_(rest, mean)
    torch._foreach_copy_(mean, after)
