"""The thinnest form of the methods that the core must carry, for the shape tests only.

The library's own consensus, proximal and Langevin solvers come with options and proofs; these are
here to hold the shape of Game, VectorField and step against what they will need.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from equilibrist import tree
from equilibrist.penalties import input_gradient
from equilibrist.solvers import Step


@dataclass(frozen=True)
class Consensus:
    """x <- x - h (v + gamma J^T v): v and J^T v on one minibatch, or on two independent ones."""

    h: float = 0.05
    gamma: float = 0.3
    batches: int = 1

    def init(self, players: Any) -> Any:
        return {}

    def step(self, field: Any, players: Any, constants: Any, state: Any, draws: Any) -> Step:
        constants = field.refresh(players, constants, draws.batch(0))
        first = field.linearize(players, constants, draws.batch(0))
        if self.batches == 1:
            drift = first.pullback(first.v)
        else:
            second = field.linearize(players, constants, draws.batch(1))
            drift = tree.scale(
                0.5, tree.axpy(1.0, first.pullback(second.v), second.pullback(first.v))
            )
        players = tree.map(
            lambda x, v, j: x - self.h * (v + self.gamma * j), players, first.v, drift
        )
        return Step(players, constants, state, {"loss": first.losses})


class ProximalInner:
    """The critic's inner problem: its loss plus lam * mean_i |grad_x D(x_i) - anchor_i|^2."""

    zero_sum = False

    def __init__(self, game: Any, lam: float) -> None:
        self.game, self.lam = game, lam
        self.players, self.separable = game.players, game.separable
        self.refresh, self.project = game.refresh, game.project

    def losses(self, players: Any, constants: Any, draw: Any, only: Any = None) -> Any:
        losses = self.game.losses(players, constants, draw, only)
        here = input_gradient(self.game.critic(players, constants), draw["real"])
        moved = (here - draw["anchor"]).flatten(1).square().sum(1).mean()
        return {**losses, "critic": losses["critic"] + self.lam * moved}


@dataclass(frozen=True)
class Proximal:
    """T critic steps on V - lam |D~ - D|^2 (anchor's gradients once, power vectors every step), then
    one generator step against the new critic."""

    steps: int = 3
    lam: float = 0.1
    h: float = 0.05

    def init(self, players: Any) -> Any:
        return {}

    def step(self, field: Any, players: Any, constants: Any, state: Any, draws: Any) -> Step:
        draw = draws.batch(0)
        constants = field.refresh(players, constants, draw)
        anchor = field.evaluate(
            lambda p, c, d: input_gradient(field.game.critic(p, c), d["real"]),
            players,
            constants,
            draw,
        )
        inner = field.of(ProximalInner(field.game, self.lam))
        held = {**draw, "anchor": anchor.detach()}
        for _ in range(self.steps):
            constants = inner.refresh(players, constants, held)
            v, losses = inner(players, constants, held, only="critic")
            players = {**players, "critic": tree.axpy(-self.h, v["critic"], players["critic"])}
        v, losses = field(players, constants, draw, only="generator")
        players = {**players, "generator": tree.axpy(-self.h, v["generator"], players["generator"])}
        return Step(players, constants, state, {"loss": losses})


@dataclass(frozen=True)
class Langevin:
    """Each player samples against the other's outer iterate: K steps, a fresh minibatch each,
    x <- x - h v + sqrt(2 h) eps N(0, I); the outer iterate becomes the inner running mean."""

    steps: int = 3
    h: float = 0.01
    eps: float = 0.1
    beta: float = 0.5

    def init(self, players: Any) -> Any:
        return {}

    def step(self, field: Any, players: Any, constants: Any, state: Any, draws: Any) -> Step:
        outer, index, means = players, 0, {}
        spread = (2 * self.h) ** 0.5 * self.eps
        for mover in players:
            here, mean = outer[mover], outer[mover]
            for _ in range(self.steps):
                draw = draws.batch(index)
                at = {**outer, mover: here}
                constants = field.refresh(at, constants, draw)
                v, losses = field(at, constants, draw, only=mover)
                noise = draws.noise(here, index)
                here = tree.map(lambda x, g, n: x - self.h * g + spread * n, here, v[mover], noise)
                mean = tree.map(lambda m, x: torch.lerp(m, x, self.beta), mean, here)
                index += 1
            means[mover] = tree.map(lambda o, m: torch.lerp(o, m, self.beta), outer[mover], mean)
        return Step(means, constants, state, {"loss": losses})
