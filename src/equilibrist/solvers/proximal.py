"""Proximal training (Farnia and Ozdaglar 2020, Algorithm 1)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from equilibrist import tree
from equilibrist.core.draws import Draw
from equilibrist.core.field import VectorField
from equilibrist.core.game import Constants, Players, Wrapped
from equilibrist.errors import GameError
from equilibrist.games import AdversarialGame, SampledGame
from equilibrist.optimizers import Adam, Optimizer
from equilibrist.penalties import input_gradient
from equilibrist.solvers._members import Weight, describe, member_weights, weight_values
from equilibrist.solvers.base import ByPlayer, DrawSource, State, Step, independent
from equilibrist.validation import at_least, positive


class _Inner(Wrapped):
    """The critic's problem: its own loss plus lam mean_i |grad_x D(x_i) - anchor_i|^2."""

    game: SampledGame
    zero_sum = False

    def __init__(self, game: SampledGame, lam: Weight) -> None:
        super().__init__(game)
        self.lam = lam

    def losses(
        self, players: Players, constants: Constants, draw: Draw, only: str | None = None
    ) -> dict[str, Tensor]:
        loss = self.game.losses(players, constants, draw, "critic")["critic"]
        here = slopes(self.game, players, constants, draw)
        moved = (here - draw["anchor"]).square().flatten(1).sum(1).mean()
        lam: Any = draw.get("lam", self.lam)  # stacked members find their own in their draws
        return {"critic": loss + lam * moved}


def slopes(game: SampledGame, players: Players, constants: Constants, draw: Draw) -> Tensor:
    """grad_x D(x_i) at the real samples [B, ...], the critic as its constants normalise it."""
    return input_gradient(
        game.critic_of(players, constants, draw), game.reals(players, constants, draw)
    )


@dataclass(frozen=True)
class Proximal(ByPlayer):
    """T critic steps on f_w + lam ||D_w~ - D_w||^2 from w~ = w, then one generator step against the new critic.

        anchor_i = grad_x D_w(x_i), once;  w~ <- P(w~ - rule(d/dw~ [f_w(theta, w~)
            + lam mean_i |grad_x D_w~(x_i) - anchor_i|^2])), T times;  w <- w~
        theta <- P(theta - rule(v_theta(theta, w)))

    Farnia and Ozdaglar 2020, Algorithm 1: the envelope theorem (Proposition 4) makes v_theta at the new critic
    the gradient of V_prox.

    Args:
        steps: T (the paper's experiments: 20).
        lam: lambda of equation 11, V - lambda ||D~ - D||^2. Algorithm 1 prints lambda / 2 before the
            penalty: pass half of its lambda here. In an ensemble also a tuple, one a member.
        optimizer, optimizers: update rules, as everywhere.
        reset: begin every inner problem with the critic's rule in its initial state. False keeps its
            moments from one outer step to the next.
        fresh: a minibatch of its own for every inner step (its anchor's gradients are then computed
            for each). False keeps one minibatch, and the samples generated from it, for all T.

    Power vectors are refreshed before every inner gradient; the anchor is the critic as it was seen
    when the step began. Where the penalty's slopes are kept, they are data: nothing is differentiated through
    them. GANs whose critic scores each sample by itself, with one critic. Losses and gradient norms: the
    critic's own loss with the penalty at its last inner step, the generator's before its step.

    Raises:
        ValueError: T below 1, a lambda that is not positive. GameError: a game without such a critic.
    """

    steps: int = 20
    lam: Weight = 0.1
    optimizer: Optimizer = field(default_factory=Adam)
    optimizers: dict[str, Optimizer] = field(default_factory=dict)
    reset: bool = True
    fresh: bool = False
    per_member: ClassVar = ("lam",)

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 1, steps=self.steps)
        for lam in weight_values(self.lam):
            positive(self, lam=lam)

    def __str__(self) -> str:
        own = ", fresh minibatches" if self.fresh else ""
        kept = "" if self.reset else ", moments kept"
        critic, generator = (str(self.rule(p)) for p in ("critic", "generator"))
        same = critic == generator
        ruled = critic if same else f"critic: {critic}, generator: {generator}"
        return f"Proximal training: {self.steps} inner critic steps, lambda {describe(self.lam)}{own}{kept}; {ruled}"

    def step(
        self,
        field: VectorField,
        players: Players,
        constants: Constants,
        state: State,
        draws: DrawSource,
    ) -> Step:
        game: Any = field.game
        if not isinstance(game, SampledGame):
            raise GameError(f"proximal training needs a GAN, not {type(game).__name__}")
        if missing := game.lacks("samples", "score"):
            raise GameError(
                f"proximal training needs the critic's slopes at real samples: give AdversarialGame {missing}=function"
            )
        if not game.samplewise or game.heads > 1:
            raise GameError(
                "proximal training needs one critic that scores each sample by itself (no batch norm in it)"
            )
        inner = field.of(_Inner(game, self.lam))
        rule = self.rule("critic")
        memory = rule.init(players["critic"]) if self.reset else state["critic"]
        first = draws.batch(0)
        # The generator's minibatch before the critic moves: a source that has none fails at once.
        last = independent(draws, self.steps) if self.fresh else first
        constants = field.refresh(players, constants, first)
        start, seen = tree.clone(players), constants
        held = None
        for k in range(self.steps):
            if held is None or self.fresh:
                held = self._held(field, start, seen, independent(draws, k) if k else first)
            if k:
                constants = field.refresh(players, constants, held)
            v, losses = inner(players, constants, held, only="critic")
            with torch.no_grad():
                field.descend(rule, "critic", v["critic"], memory, players["critic"])
                players = field.project(players)
        lead = field(players, constants, last, only="generator")
        with torch.no_grad():
            mine, part = self.rule("generator"), players["generator"]
            field.descend(mine, "generator", lead.v["generator"], state["generator"], part)
            players = field.project(players)
        info = {
            "loss": {**lead.losses, "critic": losses["critic"]},
            "grad_norm": {**field.norms(lead.v), **field.norms(v)},
        }
        state = {**state, "critic": memory}
        return Step(players, constants, state, info)

    def _held(self, field: VectorField, players: Players, constants: Constants, draw: Draw) -> Draw:
        """The draw with the anchor's slopes, and the samples that the generator makes of it: neither
        changes while the critic moves."""
        game: Any = field.game
        anchor = field.evaluate(
            lambda p, c, d: slopes(game, p, c, d), players, constants, draw
        ).detach()
        held = {**draw, "anchor": anchor}
        if not isinstance(game, AdversarialGame):  # whose losses make their samples themselves
            with torch.no_grad():
                held["fake"] = field.evaluate(game.fakes, players, constants, draw)
        lam = member_weights(self.lam, players, field.stacked)
        return {**held, "lam": lam} if isinstance(lam, Tensor) else held
