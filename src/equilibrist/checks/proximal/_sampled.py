"""V_prox of GANs on samples: the critic answers by steps of its own rule, as in section 6.1."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import torch
from torch import Tensor

from equilibrist import tree
from equilibrist._draws import Batch, Draw
from equilibrist._field import VectorField
from equilibrist._game import Constants
from equilibrist.checks._bench import Bench
from equilibrist.checks._value import ValueGame
from equilibrist.checks.proximal.inner import Answer, Part, finite, perturbed_critic
from equilibrist.penalties import input_gradient

POOL = 64  # minibatches of the optimise part, drawn once: their anchors' slopes are computed once and kept
# In minibatch gradients of both players, measured on small DCGANs: a critic step with the semi-norm and without,
# a generator step, a held-out batch in float64.
PENALISED, PLAIN, LEAD, MEASURED = 1.1, 0.6, 0.8, 2.5
SHORTER = 4  # attempts at an answer that diverges, each with a tenth of the step size


class SampledProx:
    """`Prox` over draws: the optimise part to solve the inner problem and to search, float64 banks of the others to
    measure.

    Inside: `inner_steps` steps of the critic's rule from the trained critic, its moments in their initial
    state, projected, with exact singular vectors at each step. Held-out measures of a critic that another
    part of the data chose lie below V_prox on average: no bound is known (`Answer.gap` is None).

    Outside: generator steps along Proposition 4's gradient, `prox_track` critic steps between two of them.
    """

    def __init__(self, bench: Bench, tick: Any) -> None:
        self.bench, self.tick, self.game = bench, tick, bench.game
        self.trained = bench.players
        value: Any = bench.game if bench.game.zero_sum else ValueGame(bench.game)
        self.field = VectorField(value)
        self._pool: dict[int, Draw] = {}
        self._banks: dict[str, list[Draw]] = {}
        self._fakes: tuple[Part, dict[int, Tensor]] | None = None

    # -- inside -----------------------------------------------------------------------------------

    def solve(
        self,
        generator: Part,
        lam: float,
        effort: int = 1,
        fresh: int = 0,
        warm: Part | None = None,
        begin: int = 0,
        steps: int | None = None,
    ) -> Answer:
        critic = tree.clone(self.trained["critic"] if warm is None else warm)
        if lam == float("inf"):
            return Answer(tree.clone(self.trained["critic"]), 0.0)
        if fresh:
            critic = perturbed_critic(
                self.bench, critic, fresh, self.bench.settings.perturbation * fresh
            )
        count = self.bench.settings.inner_steps * effort if steps is None else steps
        rule: Any = self.bench.settings.rule("critic")
        for _ in range(SHORTER):
            answer = self._steps(generator, critic, lam, rule, begin, count)
            if finite(answer.critic) or not hasattr(rule, "lr"):
                break
            # The penalty's curvature grows with lambda: plain steps that were stable without it diverge.
            rule = dataclasses.replace(rule, lr=rule.lr / 10)
        return answer

    def _steps(
        self, generator: Part, critic: Part, lam: float, rule: Any, begin: int, count: int
    ) -> Answer:
        """`count` steps of `rule` from `critic`."""
        critic = tree.clone(critic)
        state, constants = rule.init(critic), self.bench.constants
        for k in range(count):
            critic, constants = self._ready(generator, critic, constants)
            draw = self.draw(begin + k)
            held = {**draw, "fake": self._fake(generator, (begin + k) % POOL, draw)}
            loss, leaves = self._loss(generator, critic, constants, held, lam)
            slopes = torch.autograd.grad(loss, list(leaves.values()), materialize_grads=True)
            with torch.no_grad():
                moves = dict(zip(leaves, slopes, strict=True))
                self.field.descend(rule, "critic", moves, state, critic)
            self.tick(PENALISED if lam > 0 else PLAIN)
            if not finite(critic):  # projections and singular values of NaN raise
                return Answer(critic, steps=k + 1)
        critic, _ = self._ready(generator, critic, constants)
        return Answer(critic, steps=count)

    def _ready(self, generator: Part, critic: Part, constants: Constants) -> tuple[Part, Constants]:
        """The nearest feasible critic, and constants with its exact singular vectors."""
        at = self.game.project({"generator": generator, "critic": critic})
        return at["critic"], self.bench.exact(at, constants)

    def _loss(
        self, generator: Part, critic: Part, constants: Constants, draw: Draw, lam: float
    ) -> tuple[Tensor, Part]:
        """-(V - lam |D~ - D|^2) on a draw that holds the anchor's slopes, and the leaves it is a function of."""
        leaves = {name: x.detach().requires_grad_() for name, x in critic.items()}
        players = {"generator": generator, "critic": leaves}
        loss = self.game.losses(players, constants, draw, "critic")["critic"]
        if lam > 0:
            loss = loss + lam * self._moved(players, constants, draw)
        return loss, leaves

    def _moved(self, players: Any, constants: Constants, draw: Draw) -> Tensor:
        """mean_i |grad_x D~(x_i) - grad_x D(x_i)|^2 at real samples; differentiable in D~."""
        here = input_gradient(
            self.game.critic(players, constants, draw.get("condition")), draw["real"]
        )
        return (here - draw["anchor"]).square().flatten(1).sum(1).mean()

    def draw(self, k: int) -> Draw:
        """Minibatch k of the pool (they return in turn), with the trained critic's slopes."""
        k %= POOL
        if k not in self._pool:
            draw = self.bench.minibatch(k, index=Batch.PROX_CRITIC)
            self._pool[k] = self._anchored(self.trained, self.bench.constants, draw)
            self.tick(PLAIN)
        return self._pool[k]

    def _anchored(self, players: Any, constants: Constants, draw: Draw) -> Draw:
        with torch.no_grad():
            critic = self.game.critic(players, constants, draw.get("condition"))
            return {**draw, "anchor": input_gradient(critic, draw["real"]).detach()}

    def _fake(self, generator: Part, k: int, draw: Draw) -> Tensor:
        """The samples that a generator at rest makes of a minibatch's latents."""
        if self._fakes is None or self._fakes[0] is not generator:
            self._fakes = (generator, {})
        held = self._fakes[1]
        if k not in held:
            players = {"generator": generator, "critic": self.trained["critic"]}
            with torch.no_grad():
                held[k] = self.game.generate(
                    players, self.bench.constants, draw["latent"], draw.get("condition")
                )
        return held[k]

    # -- on held-out samples ----------------------------------------------------------------------

    def measure(self, generator: Part, critic: Part, lam: float, part: str) -> Tensor:
        if not finite(generator, critic):
            return torch.full((len(self.bench.bank(part)),), math.nan, dtype=torch.float64)
        players = tree.to({"generator": generator, "critic": critic}, dtype=torch.float64)
        constants = self.bench.exact(players, tree.to(self.bench.constants, dtype=torch.float64))
        values = []
        penalised = 0 < lam < float("inf")
        for draw in self._bank(part, penalised):
            with torch.no_grad():
                value = -self.game.losses(players, constants, draw)["critic"]
                if penalised:
                    value = value - lam * self._moved(players, constants, draw)
            values.append(value.detach())
            self.tick(MEASURED)
        return torch.stack(values)

    def _bank(self, part: str, penalised: bool) -> list[Draw]:
        if not penalised:
            return self.bench.bank(part)
        if part not in self._banks:
            players, constants = self.bench.wide
            self._banks[part] = [
                self._anchored(players, constants, draw) for draw in self.bench.bank(part)
            ]
        return self._banks[part]

    # -- outside ----------------------------------------------------------------------------------

    def feasible(self, generator: Part) -> Part:
        with torch.no_grad():
            projected: Part = self.game.project({**self.trained, "generator": generator})[
                "generator"
            ]
        return projected

    def descend(self, start: Part, lam: float) -> list[Part]:
        settings = self.bench.settings
        rule = settings.rule("generator")
        here = tree.clone(self.feasible(start))
        state, critic = rule.init(here), self.solve(here, lam).critic
        looks = {-(-settings.prox_steps // 2), settings.prox_steps}
        found = []
        for k in range(settings.prox_steps):
            if k and lam < float("inf"):
                critic = self.solve(
                    here,
                    lam,
                    warm=critic,
                    begin=k * settings.prox_track,
                    steps=settings.prox_track,
                ).critic
            if not finite(critic):
                break
            here = self.lead(here, critic, state, rule, k)
            if not finite(here):
                break
            if k + 1 in looks:
                found.append(tree.clone(here))
        return found

    def lead(self, generator: Part, critic: Part, state: Any, rule: Any, step: int) -> Part:
        """One step of the generator's rule along grad V(G, D~) (Proposition 4), projected; `state` moves on. On a
        minibatch that the critic has not seen."""
        players = {"generator": generator, "critic": critic}
        constants = self.bench.exact(players, self.bench.constants)
        draw = self.bench.minibatch(step, index=Batch.PROX_GENERATOR)
        v, _ = self.field(players, constants, draw, only="generator")
        moved = tree.clone(generator)  # kept samples know a generator by its identity
        with torch.no_grad():
            self.field.descend(rule, "generator", v["generator"], state, moved)
        self.tick(LEAD)
        return self.feasible(moved) if finite(moved) else moved
