"""V_prox of GANs on samples: the critic answers by descent on a fixed set of samples, or by its own rule's steps."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from equilibrist import tree
from equilibrist.checks.context import AuditContext, Tick, ValueGame, rows_in
from equilibrist.checks.proximal._costs import LEAD, MEASURED, PENALISED, PLAIN, POOL, is_small
from equilibrist.checks.proximal._projected import minimise, scales, within_radius
from equilibrist.checks.proximal.inner import (
    Answer,
    Part,
    Search,
    perturbed_critic,
)
from equilibrist.core.draws import Batch, Draw
from equilibrist.core.field import VectorField
from equilibrist.core.game import Constants, Game, Players
from equilibrist.optimizers import Optimizer
from equilibrist.penalties import input_gradient
from equilibrist.tree import Tree

SHORTER = 4  # attempts at an answer that ends below its start, each with a tenth of the step size
# The fixed samples. Of small players (so many parameters; so many bytes of samples at most) as many minibatches as hold
# `_BYTES`, within bounds, in one pass, which costs little more than one over a minibatch; of others `_FEW`, in turn.
_LARGEST, _BYTES, _LEAST, _MOST, _FEW = 2**20, 2**17, 8, 32, 4
_PASSES = 60  # of small players, at least, where nothing else ends the descent
_SHARE = 1e-3  # of the tolerance: a promise below it is nothing


class SampledProx:
    """`Prox` over draws: the optimise part to solve the inner problem and to search, float64 banks of the others to
    measure.

    Inside: the critic's objective on a fixed set of samples, by projected gradients whose step sizes follow the
    weights and the curvature (`_projected.minimise`), so that no answer ends below its start and each comes with what
    it may still gain. Large players (`small` false) are led there by `inner_steps` steps of the critic's rule, its
    moments in their initial state, which are taken back, and taken shorter, where they end below their start.
    Held-out measures of a critic that another part of the data chose lie below V_prox on average: no bound is
    known (`Answer.gap` is None).

    Outside: the same descent along Proposition 4's gradient, the critic's answers following; large generators
    first by steps of their rule.
    """

    def __init__(self, context: AuditContext, tick: Tick) -> None:
        self.context, self.tick, self.game = context, tick, context.game
        self.trained = context.players
        value: Game = context.game if context.game.zero_sum else ValueGame(context.game)
        self.field = VectorField(value)
        tolerance = context.tolerance().value
        self.nothing = _SHARE * tolerance if tolerance > 0 else 1e-9
        self._pool: dict[int, Draw] = {}
        self._banks: dict[str, list[Draw]] = {}
        self._fakes: tuple[Part, dict[str, Tensor]] | None = None
        self._chunks: list[Draw] = []
        self._lengths: dict[float, float] = {}
        self.small, self._stackable = False, True
        settings = context.settings
        self.passes = (
            settings.inner_steps if settings.gradients else max(_PASSES, settings.inner_steps)
        )

    # -- inside -----------------------------------------------------------------------------------

    def solve(
        self, generator: Part, lam: float, effort: int = 1, fresh: int = 0, warm: Part | None = None
    ) -> Answer:
        if lam == math.inf:
            return Answer(tree.clone(self.trained["critic"]), 0.0)
        if warm is not None and not tree.all_finite(warm):
            warm = None
        critic = self.trained["critic"] if warm is None else warm
        if fresh:
            size = self.context.settings.perturbation * fresh
            critic = perturbed_critic(self.context, critic, fresh, size)
        chunks, count = self.chunks(), self.passes
        if not self.small:
            count = max(6, self.context.settings.inner_steps // len(chunks))
            if warm is None:
                critic = self.follow(generator, lam, effort, critic).critic
        return self._polished(generator, critic, lam, count * effort)

    def _polished(self, generator: Part, critic: Part, lam: float, evaluations: int) -> Answer:
        """The descent on the fixed samples."""
        found = minimise(
            lambda at: self.answered(generator, at, lam),
            lambda at: self._nearest("critic", at),
            critic,
            evaluations,
            self.nothing,
            scales(self.trained["critic"]),
            # What the last descent at this lambda learnt of the curvature.
            self._lengths.get(lam),
        )
        if found.length is not None:
            self._lengths[lam] = found.length
        settled = found.settled and math.isfinite(found.value)
        return Answer(found.point, None, found.left, found.evaluations, settled)

    def answered(self, generator: Part, critic: Part, lam: float) -> tuple[float, Part]:
        """-(V - lam |D~ - D|^2) over the fixed samples, and its gradient in the critic."""
        if not tree.all_finite(critic):
            return math.inf, tree.zeros_like(critic)
        at = {"generator": generator, "critic": critic}
        constants = self.context.exact(at, self.context.constants)

        def term(chunk: Draw, fake: Tensor) -> tuple[Tensor, Tensor, Part]:
            held = {**chunk, "fake": fake}
            loss, leaves = self._loss(generator, critic, constants, held, lam)
            return loss, loss, leaves

        mean = self._mean(map(term, self.chunks(), self._made(generator)), critic)
        self.tick(len(self.chunks()) * (PENALISED if lam > 0 else PLAIN))
        return mean

    def _mean(self, terms: Iterable[tuple[Tensor, Tensor, Part]], like: Part) -> tuple[float, Part]:
        """The mean value over the fixed samples, infinite where it is not finite, and the mean gradient, of (value,
        what is differentiated, its leaves) on each of the chunks."""
        value, slope, count = 0.0, tree.zeros_like(like), len(self.chunks())
        for shown, loss, leaves in terms:
            slopes = torch.autograd.grad(loss, list(leaves.values()), materialize_grads=True)
            value += float(shown.detach()) / count
            for name, s in zip(leaves, slopes, strict=True):
                slope[name] += s / count
        return value if math.isfinite(value) else math.inf, slope

    def follow(
        self,
        generator: Part,
        lam: float,
        effort: int = 1,
        critic: Part | None = None,
        begin: int = 0,
    ) -> Answer:
        """The answer by the critic's own rule: as many steps on minibatches, taken back and taken shorter where they
        end below their start on fixed samples (the penalty's curvature grows with lambda: plain steps that were
        stable without it diverge)."""
        start = tree.clone(self.trained["critic"] if critic is None else critic)
        if lam == math.inf:
            return Answer(start, 0.0)
        count = self.context.settings.inner_steps * effort
        rule: Any = self.context.settings.rule("critic")
        start = self._nearest("critic", start)
        floor = self._looked(generator, start, lam) - 100 * self.nothing
        for _ in range(SHORTER):
            answer = self._steps(generator, start, lam, rule, begin, count)
            if self._looked(generator, answer.critic, lam) >= floor:
                return answer
            if not hasattr(rule, "lr"):
                break
            rule = dataclasses.replace(rule, lr=rule.lr / 10)
        return Answer(start, steps=count)

    def _looked(self, generator: Part, critic: Part, lam: float) -> float:
        """V - lam |D~ - D|^2 on the first of the fixed samples; minus infinity where it is not finite."""
        if not tree.all_finite(critic):
            return -math.inf
        at = {"generator": generator, "critic": critic}
        constants, total = self.context.exact(at, self.context.constants), 0.0
        pairs = list(zip(self.chunks(), self._made(generator), strict=True))[:2]
        for chunk, fake in pairs:
            loss, _ = self._loss(generator, critic, constants, {**chunk, "fake": fake}, lam)
            total -= float(loss.detach()) / len(pairs)
        self.tick(len(pairs) * PLAIN)
        return total if math.isfinite(total) else -math.inf

    def _steps(
        self, generator: Part, critic: Part, lam: float, rule: Optimizer, begin: int, count: int
    ) -> Answer:
        """`count` steps of `rule` from `critic`."""
        critic = tree.clone(critic)
        state, constants = rule.init(critic), self.context.constants
        for k in range(count):
            critic = self._nearest("critic", critic)
            at = {"generator": generator, "critic": critic}
            constants, draw = self.context.exact(at, constants), self.draw(begin + k)
            held = {**draw, "fake": self._fake(generator, f"pool {(begin + k) % POOL}", draw)}
            loss, leaves = self._loss(generator, critic, constants, held, lam)
            slopes = torch.autograd.grad(loss, list(leaves.values()), materialize_grads=True)
            with torch.no_grad():
                moves = dict(zip(leaves, slopes, strict=True))
                self.field.descend(rule, "critic", moves, state, critic)
            self.tick(PENALISED if lam > 0 else PLAIN)
            if not tree.all_finite(critic):  # projections and singular values of NaN raise
                return Answer(critic, steps=k + 1)
        return Answer(self._nearest("critic", critic), steps=count)

    def _nearest(self, player: str, part: Part) -> Part:
        """The nearest feasible parameters; what is not finite comes back as it is, for projections raise there."""
        if not tree.all_finite(part):
            return part
        with torch.no_grad():
            for projection in self.game.projections:
                if projection.player == player:
                    part = projection(part)
        return part

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

    def _moved(self, players: Players, constants: Constants, draw: Draw) -> Tensor:
        """mean_i |grad_x D~(x_i) - grad_x D(x_i)|^2 at real samples; differentiable in D~."""
        real = self.game.reals(players, constants, draw)
        here = input_gradient(self.game.critic_of(players, constants, draw), real)
        return (here - draw["anchor"]).square().flatten(1).sum(1).mean()

    def draw(self, k: int) -> Draw:
        """Minibatch k of the pool (which is cycled through), with the trained critic's slopes."""
        k %= POOL
        if k not in self._pool:
            draw = self.context.minibatch(k, index=Batch.PROX_CRITIC)
            self._pool[k] = self._anchored(self.trained, self.context.constants, draw)
            self.tick(PLAIN)
        return self._pool[k]

    def _anchored(self, players: Players, constants: Constants, draw: Draw) -> Draw:
        with torch.no_grad():
            critic = self.game.critic_of(players, constants, draw)
            real = self.game.reals(players, constants, draw)
            return {**draw, "anchor": input_gradient(critic, real).detach()}

    def _fake(self, generator: Part, key: str, draw: Draw) -> Tensor:
        """The samples that a generator at rest makes of a draw's latents; kept by `key`."""
        if self._fakes is None or self._fakes[0] is not generator:
            self._fakes = (generator, {})
        held = self._fakes[1]
        if key not in held:
            players = {"generator": generator, "critic": self.trained["critic"]}
            with torch.no_grad():
                held[key] = self.game.fakes(players, self.context.constants, draw)
        return held[key]

    def chunks(self) -> list[Draw]:
        """The fixed samples: the pool's first minibatches, as one draw where they fit."""
        if not self._chunks:
            one = self.draw(0)
            size = sum(x.nbytes for x in one.values())
            count = max(_LEAST, min(_MOST, _BYTES // max(size, 1)))
            rows = all(x.ndim and len(x) == rows_in(one) for x in one.values())
            self.small = is_small(self.context) and rows and count * size <= _LARGEST
            draws = [self.draw(k) for k in range(count if self.small else _FEW)]
            if self.small:
                draws = [{k: torch.cat([draw[k] for draw in draws]) for k in one}]
            self._chunks = draws
        return self._chunks

    def _made(self, generator: Part) -> list[Tensor]:
        """The generator's samples of the fixed latents."""
        return [self._fake(generator, f"chunk {i}", d) for i, d in enumerate(self.chunks())]

    # -- on held-out samples ----------------------------------------------------------------------

    def measure(self, generator: Part, critic: Part, lam: float, part: str) -> Tensor:
        if not tree.all_finite(generator, critic):
            return torch.full((len(self.context.bank(part)),), math.nan, dtype=torch.float64)
        players = tree.to({"generator": generator, "critic": critic}, dtype=torch.float64)
        constants = self.context.exact(
            players, tree.to(self.context.constants, dtype=torch.float64)
        )
        penalised = 0 < lam < math.inf
        bank = self._bank(part, penalised)

        def one(draw: Draw) -> Tensor:
            value = -self.game.losses(players, constants, draw)["critic"]
            if penalised:
                value = value - lam * self._moved(players, constants, draw)
            return value.detach()

        with torch.no_grad():
            values = self._at_once(one, bank) if self.small else None
            if values is None:
                values = torch.stack([one(draw) for draw in bank])
        self.tick(len(bank) * MEASURED)
        return values

    def _at_once(self, one: Callable[[Draw], Tensor], bank: list[Draw]) -> Tensor | None:
        """The values of all batches in one pass, where their shapes are equal; None where modules do not allow it."""
        if not self._stackable or len({rows_in(x) for x in bank}) > 1:
            return None
        try:
            values: Tensor = torch.func.vmap(one)(tree.stack(bank))
        except Exception:  # modules may branch on what they see, or change themselves
            self._stackable = False
            return None
        return values

    def _bank(self, part: str, penalised: bool) -> list[Draw]:
        if not penalised:
            return self.context.bank(part)
        if part not in self._banks:
            players, constants = self.context.wide
            self._banks[part] = [
                self._anchored(players, constants, draw) for draw in self.context.bank(part)
            ]
        return self._banks[part]

    # -- outside ----------------------------------------------------------------------------------

    def feasible(self, generator: Part) -> Part:
        return self._nearest("generator", generator)

    def descend(
        self, start: Part, lam: float, within: float = math.inf, share: float = 1.0
    ) -> Search:
        self.chunks()
        settings = self.context.settings
        first, found = self.feasible(start), []
        if not self.small and within == math.inf:
            found = self._walk(first, lam)
            first = found[-1] if found else first
        count = settings.prox_steps
        if not self.small:
            count = max(4, count // len(self.chunks()))
        warm: list[Part] = [self.solve(first, lam).critic]

        def objective(at: Part) -> tuple[float, Part]:
            if not tree.all_finite(at):
                return math.inf, tree.zeros_like(at)
            if lam < math.inf:
                track = self.passes if self.small else settings.prox_track
                warm[0] = self._polished(at, warm[0], lam, track).critic
            return self._value(at, warm[0], lam)

        def project(at: Part) -> Part:
            at = self.feasible(at)
            free = within == math.inf or not tree.all_finite(at)
            return at if free else within_radius(at, self.trained["generator"], within)

        nothing = 10 * share**2 * self.nothing
        end = minimise(objective, project, first, count, nothing, scales(self.trained["generator"]))
        return Search([*found, end.point], end.left, end.settled)

    def _value(self, generator: Part, critic: Part, lam: float) -> tuple[float, Part]:
        """V - lam |D~ - D|^2 over the fixed samples, and its gradient in the generator (Proposition 4)."""
        leaves = {name: x.detach().requires_grad_() for name, x in generator.items()}
        players = {"generator": leaves, "critic": critic}
        at = {"generator": generator, "critic": critic}
        constants = self.context.exact(at, self.context.constants)

        def term(chunk: Draw) -> tuple[Tensor, Tensor, Part]:
            v = -self.game.losses(players, constants, chunk)["critic"]
            if not 0 < lam < math.inf:
                return v, v, leaves
            return v - lam * self._moved(players, constants, chunk), v, leaves

        mean = self._mean(map(term, self.chunks()), generator)
        self.tick(len(self.chunks()) * LEAD)
        return mean

    def _walk(self, start: Part, lam: float) -> list[Part]:
        """Steps of the generator's rule, `prox_track` critic steps between two of them: iterates half-way and at the
        end."""
        settings = self.context.settings
        rule = settings.rule("generator")
        here = tree.clone(start)
        state, critic = rule.init(here), self.follow(here, lam).critic
        looks = {-(-settings.prox_steps // 2), settings.prox_steps}
        found = []
        for k in range(settings.prox_steps):
            if k and lam < math.inf:
                begin = k * settings.prox_track
                own = settings.rule("critic")
                critic = self._steps(here, critic, lam, own, begin, settings.prox_track).critic
            if not tree.all_finite(critic):
                break
            here = self.lead(here, critic, state, rule, k)
            if not tree.all_finite(here):
                break
            if k + 1 in looks:
                found.append(tree.clone(here))
        return found

    def lead(self, generator: Part, critic: Part, state: Tree, rule: Optimizer, step: int) -> Part:
        """One step of the generator's rule along grad V(G, D~) (Proposition 4), projected; `state` moves on. On a
        minibatch that the critic has not seen."""
        players = {"generator": generator, "critic": critic}
        constants = self.context.exact(players, self.context.constants)
        draw = self.context.minibatch(step, index=Batch.PROX_GENERATOR)
        v, _ = self.field(players, constants, draw, only="generator")
        moved = tree.clone(generator)  # kept samples know a generator by its identity
        with torch.no_grad():
            self.field.descend(rule, "generator", v["generator"], state, moved)
        self.tick(LEAD)
        return self.feasible(moved) if tree.all_finite(moved) else moved
